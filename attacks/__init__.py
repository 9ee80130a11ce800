"""The attacks that come with the benchmark: one file each, and one line here."""

BUILT_IN: dict[str, str] = {
    "fgsm": "bench.attacks.fgsm:FGSM",
    "ifgsm": "bench.attacks.ifgsm:IFGSM",
    "lavan": "bench.attacks.lavan:LaVAN",
    "occlusion": "bench.attacks.occlusion:Occlusion",
    "patch": "bench.attacks.patch:AdversarialPatch",
    "pgd": "bench.attacks.pgd:PGD",
    "random-patch": "bench.attacks.random_patch:RandomPatch",
}
