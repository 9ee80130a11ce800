"""Whether a cell that is computed again agrees with its record."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from bench.records.metrics import Estimate, difference, per_image
from bench.records.schema import Cell, Facts, Outcome

MEASURES = [one.name for one in fields(Facts) if one.name not in ("index", "label", "noted")]
ALLOWED, ALLOWED_RANDOM = 0.02, 0.05
"""By how much a mean may differ when a cell is computed again: rounding on another machine turns single images; a
random defense differs by chance, and must then differ beyond the paired interval, too."""
_BY_CHANCE = 3.3
"""Standard errors by which other images may differ: once in 2,000 honest submissions they differ by more."""


@dataclass(frozen=True)
class Compared:
    """One measure of one cell, as recorded and as computed again.

    Attributes:
        gap: recorded − again.
        right: whether that is little enough.
        fresh: whether it was computed on other images of the same data set.
    """

    cell: Cell
    measure: str
    recorded: float
    again: float
    gap: Estimate
    right: bool
    fresh: bool = False


class MismatchError(Exception):
    """Records that are not true."""


def in_words(one: Compared) -> str:
    """What was compared, in a sentence."""
    gap = f"{100 * one.gap.value:+.1f} points, {100 * one.gap.low:+.1f} to {100 * one.gap.high:+.1f}"
    where = "on other images" if one.fresh else "again"
    return (
        f"{one.measure} of {one.cell.attack} ({one.cell.tier}, seed {one.cell.seed}) is recorded as "
        f"{100 * one.recorded:.1f} % and is {100 * one.again:.1f} % {where} ({gap})"
    )


def compare(recorded: Outcome, again: Facts, by_chance: bool) -> list[Compared]:
    """Every measure of a cell, image by image.

    Args:
        recorded: the record.
        again: what the cell gives now.
        by_chance: whether the defense is random.
    """
    facts, found = recorded.facts, []
    if facts is None or set(facts.noted) != set(again.noted):
        raise MismatchError(f"{recorded.cell} notes other things than it does when it is computed again")
    for name in MEASURES:
        before, after = per_image([facts], name), per_image([again], name)
        if (before is None) != (after is None):
            raise MismatchError(f"{recorded.cell} {'has' if after is None else 'lacks'} {name}")
        if before is None or after is None:
            continue
        gap = difference(before, after)
        differs = abs(gap.value) > (ALLOWED_RANDOM if by_chance else ALLOWED)
        right = not differs or (by_chance and gap.low <= 0 <= gap.high)
        found.append(Compared(recorded.cell, name, float(before.values.mean()), float(after.values.mean()), gap, right))
    return found


def compare_fresh(recorded: Outcome, fresh: Facts) -> list[Compared]:
    """The two accuracies on images that were not evaluated: recorded ones must not be better beyond chance.

    A defense that knows the evaluated images by heart is much better on them than on others.
    """
    facts, found = recorded.facts, []
    if facts is None:
        return []
    new = ~np.isin(fresh.index, facts.index)
    for name in ("defended_clean", "defended_attacked"):
        before, after = np.asarray(getattr(facts, name)), np.asarray(getattr(fresh, name))[new]
        if not len(after):
            continue
        value = float(before.mean() - after.mean())
        pooled = (before.sum() + after.sum() + 1) / (len(before) + len(after) + 2)
        half = _BY_CHANCE * math.sqrt(pooled * (1 - pooled) * (1 / len(before) + 1 / len(after)))
        gap = Estimate(value, value - half, value + half, len(after))
        found.append(
            Compared(recorded.cell, name, float(before.mean()), float(after.mean()), gap, gap.low <= 0, fresh=True)
        )
    return found
