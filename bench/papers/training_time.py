"""How long trainings take, compared with the control's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import median

from bench.papers.match import fits
from bench.records.schema import Outcome

CONTROL = "retrained"
"""The plain training that others are compared with."""


def increase(outcomes: Iterable[Outcome], defense: str) -> tuple[str, float] | None:
    """By how many percent a training takes longer than the control's, for each image and epoch.

    Args:
        outcomes: on the same data and model.
        defense: the text of the defense, as in `fits`.

    Returns:
        The machine and the increase there, from the medians over all trainings with the fewest parameters that fit;
        None where no machine has trained both.
    """
    paces: dict[str, dict[str, dict[str, set[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for one in outcomes:
        took, text = one.training, one.cell.defense
        if {"seconds", "images", "epochs"} <= set(took):
            pace = took["seconds"] / max(1, took["images"] * took["epochs"])
            for name in (CONTROL, defense):
                if fits(name, text, one.defense):
                    paces[one.provenance.get("device", "")][name][text].add(pace)
    for device, known in sorted(paces.items()):
        if CONTROL in known and defense in known:
            control, taken = (median(known[name][min(known[name], key=len)]) for name in (CONTROL, defense))
            return device, 100 * (taken / control - 1)
    return None
