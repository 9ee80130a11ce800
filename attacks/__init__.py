"""The attacks that come with the benchmark: one file each, and one line here."""

BUILT_IN: dict[str, str] = {
    "fgsm": "bench.attacks.fgsm:FGSM",
    "ifgsm": "bench.attacks.ifgsm:IFGSM",
    "occlusion": "bench.attacks.occlusion:Occlusion",
    "pgd": "bench.attacks.pgd:PGD",
    "random-patch": "bench.attacks.random_patch:RandomPatch",
}
