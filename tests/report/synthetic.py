"""Records of a large board that nobody computed: as many as the site must bear, and quickly made."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.records.schema import TIERS, Cell, Facts, Latency, Outcome, PluginRecord
from bench.records.store import Store

N = 200
THREATS = {
    "patch": ("patch ≤ 5 %", ("lavan", "patch", "random-patch", "sparse-rs-patch", "tnt")),
    "linf": ("L∞ ≤ 8/255", ("apgd", "fgsm", "ifgsm", "pgd", "square")),
    "pixels": ("1 pixel", ("corner-pixel", "greedyfool", "pixel", "random-pixel", "sparse-rs")),
}
KINDS = ("transform", "detector", "trained", "certified")
DATASETS = (("plates", "plates-cnn"), ("folder:cifar10", "resnet20"), ("folder:imagenet", "torchvision:resnet18"))


def outcome(cell: Cell, kind: str, threat: str, level: float) -> Outcome:
    """One record: the images right under attack are the first `level` of all, among them no wrong one."""
    order = np.arange(N)
    clean, kept, bare = (order < share * N for share in (0.9, min(level, 0.9), 0.2))
    ones = {name: values.astype(float).tolist() for name, values in (("clean", clean), ("kept", kept), ("bare", bare))}
    detector, certified = kind == "detector", kind == "certified"
    facts = Facts(
        index=order.tolist(),
        label=(order % 10).tolist(),
        eligible=clean.astype(int).tolist(),
        bare_clean=ones["clean"],
        bare_attacked=ones["bare"],
        defended_clean=ones["clean"],
        defended_attacked=ones["kept"],
        defended_attacked_8bit=ones["kept"],
        reached=(clean & ~kept).astype(float).tolist(),
        rejected_clean=[0.0] * N if detector else None,
        rejected_attacked=[0.0] * N if detector else None,
        certified=[int(one) for one in order < 0.1 * N] if certified and threat == "patch" else None,
    )
    budget = THREATS[threat][0]
    traits = {"threat_model": threat, "budget": budget, "access": "gradients", "universal": False}
    return Outcome(
        cell,
        "ok",
        classes=10,
        attack=PluginRecord(cell.attack, cell.attack.title(), "arXiv 1712.09665", {"steps": 10}, traits),
        defense=PluginRecord(cell.defense, cell.defense.title(), "arXiv 1807.01216", {"strength": 1}, {"kind": kind}),
        facts=facts,
        queries={"forwards_mean": 10.0, "backwards_mean": 10.0},
        fingerprints={"data": cell.dataset, "weights": cell.model, "protocol": "1"},
        provenance={"torch": "2.6", "device": "cpu"},
        seconds={"attack": 1.0, "train": 60.0 if kind == "trained" else 0.0},
        date="2025-01-02T03:04:05+00:00",
    )


def fill(folder: Path, defenses: int = 25, datasets: int = 3) -> list[Cell]:
    """Writes records of this many defenses and data sets, all attacks above, both tiers; returns their cells."""
    store, cells = Store(folder), []
    store.prepare()
    names = [("none", "none")] + [(f"shield-{number:02d}", KINDS[number % 4]) for number in range(1, defenses)]
    for dataset, model in DATASETS[:datasets]:
        for place, (defense, kind) in enumerate(names):
            times = {1: {"bare": 1.0, "defended": 1.0 + place, "ratio": 1.0 + place}}
            store.save(Latency(dataset, model, defense, times, "a machine"))
            for threat, (_, attacks) in THREATS.items():
                for number, attack in enumerate(attacks):
                    for tier in TIERS:
                        level = (0.2 + 0.02 * place + 0.01 * number) * (1 if tier == "oblivious" else 0.6)
                        cell = Cell(dataset, model, attack, defense, tier, images=N)
                        store.save(outcome(cell, kind, threat, level if defense != "none" else 0.2))
                        cells.append(cell)
    return cells
