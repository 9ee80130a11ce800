"""The defenses that come with the benchmark: one file each, and one line here."""

BUILT_IN: dict[str, str] = {
    "annnet": "bench.defenses.annnet:ANNNet",
    "apg": "bench.defenses.apg:APG",
    "bilateral": "bench.defenses.bilateral:Bilateral",
    "bit-depth": "bench.defenses.bit_depth:BitDepth",
    "derandomized-smoothing": "bench.defenses.derandomized_smoothing:DerandomizedSmoothing",
    "gaussian": "bench.defenses.gaussian:Gaussian",
    "jpeg": "bench.defenses.jpeg:JPEG",
    "jujutsu": "bench.defenses.jujutsu:Jujutsu",
    "lgs": "bench.defenses.lgs:LGS",
    "median": "bench.defenses.median:Median",
    "n-pixel": "bench.defenses.n_pixel:NPixel",
    "none": "bench.defenses.none:NoDefense",
    "patchcleanser": "bench.defenses.patchcleanser:PatchCleanser",
    "random-ablation": "bench.defenses.random_ablation:RandomAblation",
    "sentinet": "bench.defenses.sentinet:SentiNet",
    "squeeze": "bench.defenses.squeeze:Squeeze",
    "tvm": "bench.defenses.tvm:TVM",
    "tvm-guo": "bench.defenses.tvm:TVMGuo",
}
