"""The defenses that come with the benchmark: one file each, and one line here."""

BUILT_IN: dict[str, str] = {
    "bilateral": "bench.defenses.bilateral:Bilateral",
    "bit-depth": "bench.defenses.bit_depth:BitDepth",
    "gaussian": "bench.defenses.gaussian:Gaussian",
    "jpeg": "bench.defenses.jpeg:JPEG",
    "lgs": "bench.defenses.lgs:LGS",
    "median": "bench.defenses.median:Median",
    "none": "bench.defenses.none:NoDefense",
}
