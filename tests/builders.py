"""Records made by hand, and a reader of pages, for tests of what is made from records."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from bench.records.schema import Cell, Facts, Latency, Outcome, PluginRecord
from bench.records.store import Store

NASTY = "<script>alert(1)</script>|`x`\n# *y* [z](http://evil.example) \x1b[31m &amp;"
LINF = {"threat_model": "linf", "budget": "L∞ ≤ 8/255", "access": "gradients", "universal": False}
PATCH = {"threat_model": "patch", "budget": "patch ≤ 5 %", "access": "gradients", "universal": True}
TRAITS = {
    "fgsm": {**LINF, "family": "sign", "steps": 1},
    "ifgsm": {**LINF, "family": "sign", "steps": 10},
    "square": {**LINF, "access": "scores"},
    "patch": PATCH,
    "sparse-rs": {**PATCH, "access": "scores", "universal": False},
    "occlusion": {**PATCH, "access": "none", "universal": False},
}


def facts(attacked: float, clean: float = 0.95, bare: float = 0.2, n: int = 400, **more: Any) -> Facts:
    """`n` images, the first of which are right: those right under attack are right on clean images too."""

    def first(level: float) -> list[float]:
        return (np.arange(n) < round(level * n)).astype(float).tolist()

    right, kept = first(clean), first(attacked)
    given: dict[str, Any] = {
        "index": list(range(n)),
        "label": [one % 10 for one in range(n)],
        "eligible": [int(one) for one in right],
        "bare_clean": first(0.95),
        "bare_attacked": first(bare),
        "defended_clean": right,
        "defended_attacked": kept,
        "defended_attacked_8bit": kept,
        "reached": [one - other for one, other in zip(right, kept, strict=True)],
    }
    return Facts(**{**given, **more})


def outcome(attack: str, defense: str, tier: str, attacked: float | Facts | None, /, **more: Any) -> Outcome:
    """One record; `attacked` is the accuracy under attack, or facts, or None for a cell that failed.

    `more` gives fields of the cell, `attack_traits`, `defense_traits`, and fields of the record.
    """
    name, kind = attack.partition(":")[0], "none" if defense == "none" else "transform"
    cell = {"dataset": "cifar10", "model": "photos-cnn", "attack": attack, "defense": defense, "tier": tier}
    cell |= {key: more.pop(key) for key in ("dataset", "goal", "effort", "images", "seed") if key in more}
    traits = more.pop("attack_traits", TRAITS.get(name, PATCH))
    steps = {"fgsm": {}, "patch": {"area": 0.05}}.get(name, {"steps": 10})
    defended = {"kind": kind, **more.pop("defense_traits", {})}
    given: dict[str, Any] = {
        "cell": Cell(**cell),
        "status": "ok" if attacked is not None else "timeout",
        "reason": "" if attacked is not None else "took longer than 60 s",
        "classes": 10,
        "attack": PluginRecord(name, name.upper(), "Someone 2017, arXiv 1712.09665", steps, traits),
        "defense": PluginRecord(defense.partition(":")[0], defense.upper(), "", {}, defended),
        "facts": facts(attacked, n=cell.get("images") or 400) if isinstance(attacked, float) else attacked,
        "queries": {"forwards_mean": 40.0, "forwards_max": 41.0},
        "fingerprints": {"data": "d1", "weights": "w1", "protocol": "1"},
        "provenance": {"torch": "2.6", "device": "cpu"},
        "date": "2025-01-02T03:04:05+00:00",
    }
    return Outcome(**{**given, **more})


def both(attack: str, defense: str, oblivious: float, adaptive: float, **more: Any) -> list[Outcome]:
    return [
        outcome(attack, defense, tier, one, **more) for tier, one in (("oblivious", oblivious), ("adaptive", adaptive))
    ]


def saved(folder: Path, *records: Outcome | Latency) -> Path:
    store = Store(folder)
    store.prepare()
    for one in records:
        store.save(one)
    return folder


LGS = [*both("patch", "none", 0.2, 0.2), *both("patch", "lgs", 0.6, 0.4)]


class Tags(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
