"""The attacks that come with the benchmark: one file each, and one line here."""

BUILT_IN: dict[str, str] = {
    "corner-pixel": "bench.attacks.corner_pixel:CornerPixel",
    "fgsm": "bench.attacks.fgsm:FGSM",
    "greedyfool": "bench.attacks.greedyfool:GreedyFool",
    "ifgsm": "bench.attacks.ifgsm:IFGSM",
    "lavan": "bench.attacks.lavan:LaVAN",
    "occlusion": "bench.attacks.occlusion:Occlusion",
    "patch": "bench.attacks.patch:AdversarialPatch",
    "pgd": "bench.attacks.pgd:PGD",
    "pixel": "bench.attacks.pixel:Pixel",
    "random-patch": "bench.attacks.random_patch:RandomPatch",
    "random-pixel": "bench.attacks.random_pixel:RandomPixel",
    "sparse-rs": "bench.attacks.sparse_rs:SparseRS",
    "sparse-rs-patch": "bench.attacks.sparse_rs_patch:SparseRSPatch",
}
