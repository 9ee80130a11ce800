"""How long trainings take, compared with a control."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from statistics import median

from bench.papers.match import fits
from bench.records.schema import Outcome


def training_increase(outcomes: Iterable[Outcome], defense: str, control: str) -> tuple[str, float] | None:
    """By how many percent a training takes longer than the control's, for each image and epoch.

    Args:
        outcomes: on the same data and model.
        defense, control: texts of defenses, as in `fits`.

    Returns:
        The machine and the increase there, from the medians over all trainings with the fewest parameters that fit;
        None if no machine has trained both.
    """
    paces: dict[str, dict[str, dict[str, set[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for outcome in outcomes:
        cost, text = outcome.training, outcome.cell.defense
        if {"seconds", "images", "epochs"} <= set(cost):
            pace = cost["seconds"] / max(1, cost["images"] * cost["epochs"])
            for name in (control, defense):
                if fits(name, text, outcome.defense):
                    paces[outcome.provenance.get("device", "")][name][text].add(pace)
    for device, known in sorted(paces.items()):
        if control in known and defense in known:
            base, own = (median(known[name][min(known[name], key=len)]) for name in (control, defense))
            return device, 100 * (own / base - 1)
    return None
