"""Whether a cell that is computed again agrees with its record."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import numpy as np

from bench.records.intervals import Estimate, difference
from bench.records.metrics import per_image
from bench.records.schema import Cell, Facts

COMPARED_FACTS = [field.name for field in fields(Facts) if field.name not in ("index", "label", "noted")]
ALLOWED, ALLOWED_RANDOM = 0.02, 0.05
"""By how much a mean may differ when a cell is computed again: rounding on another machine turns single images. A
random defense differs by chance; to count, its difference must exceed the paired interval, too."""
_BY_CHANCE = 3.3
"""Standard errors by which other images may differ; one in 2,000 honest submissions differs by more."""


@dataclass(frozen=True)
class Compared:
    """One measure of one cell, as recorded and as computed again.

    Attributes:
        gap: recorded − again.
        right: whether that is small enough.
        other_images: whether it was computed on other images of the same data set.
    """

    cell: Cell
    measure: str
    recorded: float
    again: float
    gap: Estimate
    right: bool
    other_images: bool = False


class MismatchError(Exception):
    """A record is not true."""


def in_words(compared: Compared) -> str:
    """What was compared, in a sentence."""
    cell, gap = compared.cell, compared.gap
    place = "on other images" if compared.other_images else "computed again"
    return (
        f"{compared.measure} of {cell.attack} ({cell.tier}, seed {cell.seed}) is recorded as "
        f"{100 * compared.recorded:.1f} % and is {100 * compared.again:.1f} % {place} "
        f"({100 * gap.value:+.1f} points, {100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
    )


def compare_with_record(cell: Cell, recorded: Facts, again: Facts, by_chance: bool) -> list[Compared]:
    """Every measure of a cell, image by image.

    Args:
        cell: what is compared.
        recorded: its facts in the bundle.
        again: its facts as computed again.
        by_chance: whether the defense is random.

    Raises:
        MismatchError: one of them lacks a measure.
    """
    compared = []
    for name in COMPARED_FACTS:
        before, after = per_image([recorded], name), per_image([again], name)
        if (before is None) != (after is None):
            raise MismatchError(f"{cell} {'has' if after is None else 'lacks'} {name}")
        if before is None or after is None:
            continue
        gap = difference(before, after)
        differs = abs(gap.value) > (ALLOWED_RANDOM if by_chance else ALLOWED)
        right = not differs or (by_chance and gap.low <= 0 <= gap.high)
        compared.append(Compared(cell, name, float(before.values.mean()), float(after.values.mean()), gap, right))
    return compared


def compare_other_images(cell: Cell, evaluated: Facts, others: Facts) -> list[Compared]:
    """The two accuracies on images that were not evaluated: they must not be worse there beyond chance.

    A defense that knows the evaluated images by heart is much better on them than on others.
    """
    compared = []
    new = ~np.isin(others.index, evaluated.index)
    for name in ("defended_clean", "defended_attacked"):
        before, after = np.asarray(getattr(evaluated, name)), np.asarray(getattr(others, name))[new]
        if not len(after):
            continue
        value = float(before.mean() - after.mean())
        pooled = (before.sum() + after.sum() + 1) / (len(before) + len(after) + 2)
        half = _BY_CHANCE * math.sqrt(pooled * (1 - pooled) * (1 / len(before) + 1 / len(after)))
        gap = Estimate(value, value - half, value + half, len(after))
        compared.append(
            Compared(cell, name, float(before.mean()), float(after.mean()), gap, gap.low <= 0, other_images=True)
        )
    return compared
