"""Whether our numbers rank the defenses as a paper's do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from scipy.stats import kendalltau

from bench.papers.measure import Beside

FEWEST = 3
"""Of fewer defenses no order is told."""
SHOWN = 6
"""So many pairs are named."""


class Point(NamedTuple):
    """A defense as the paper and as the records have it, in the same unit."""

    label: str
    printed: float
    value: float
    low: float
    high: float


def points(labels: Sequence[str], printed: Sequence[str], besides: Sequence[Beside]) -> list[Point]:
    """The values that have a number on both sides; none where they do not compare defenses under one attack."""
    every = [
        (Point(label, float(number[0]), *beside.numbers), beside.found)
        for label, text, beside in zip(labels, printed, besides, strict=True)
        if beside.found and beside.numbers[0] == beside.numbers[0] and (number := re.match(r"-?\d+(\.\d+)?", text))
    ]
    defenses = {found.defense for _, found in every}
    attacks = {(found.dataset, found.attack, found.tier) for _, found in every}
    return [point for point, _ in every] if len(defenses) == len(every) and len(attacks) == 1 else []


def agreement(what: str, every: Sequence[Point]) -> str:
    """One sentence on the order, "" where there are too few.

    Args:
        what: what is compared, such as the head of a column.
        every: the defenses; a pair counts as decided where their intervals do not overlap.
    """
    if len(every) < FEWEST:
        return ""
    tau = kendalltau([one.printed for one in every], [one.value for one in every]).statistic
    decided = [
        (one, other) if one.high < other.low else (other, one)
        for one, other in combinations(every, 2)
        if one.high < other.low or other.high < one.low
    ]
    against = [f"{worse.label} below {better.label}" for worse, better in decided if worse.printed > better.printed]
    told = f"Order of {what}: Kendall's τ {tau:.2f} over {len(every)} defenses. "
    if not decided:
        return f"{told}Our intervals tell none of them apart."
    told += f"Our intervals tell {len(decided)} of {len(every) * (len(every) - 1) // 2} pairs apart, "
    told += f"{len(against)} of them against the paper's order"
    more = f" and {len(against) - SHOWN} more" if len(against) > SHOWN else ""
    return f"{told}{': ' if against else ''}{', '.join(against[:SHOWN])}{more}."
