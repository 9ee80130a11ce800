"""Whether our numbers rank the defenses as a paper's do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from scipy.stats import kendalltau

from bench.papers.measure import Measurement

FEWEST = 3
"""Fewer defenses are too few to compare orders."""
NAMED_PAIRS = 6
"""At most this many pairs are named."""


class Point(NamedTuple):
    """A defense in the paper and in the records, in the same unit."""

    label: str
    printed: float
    value: float
    low: float
    high: float


def comparable(labels: Sequence[str], printed: Sequence[str], measurements: Sequence[Measurement]) -> list[Point]:
    """The values with a number on both sides; none unless they compare defenses under measurement attack."""
    points, cells = [], []
    for label, text, measurement in zip(labels, printed, measurements, strict=True):
        number = re.match(r"-?\d+(\.\d+)?", text)
        if measurement.measured and measurement.interval[0] == measurement.interval[0] and number:  # not NaN
            points.append(Point(label, float(number[0]), *measurement.interval))
            cells.append(measurement.measured)
    attacks = {(cell.dataset, cell.attack, cell.tier) for cell in cells}
    return points if len({cell.defense for cell in cells}) == len(cells) and len(attacks) == 1 else []


def agreement(what: str, points: Sequence[Point]) -> str:
    """A sentence on the order of the defenses, "" if there are too few.

    Args:
        what: what is compared, such as the heading of a column.
        points: the defenses; a pair counts as decided if their intervals do not overlap.
    """
    if len(points) < FEWEST:
        return ""
    tau = kendalltau([one.printed for one in points], [one.value for one in points]).statistic
    decided = [
        (one, other) if one.high < other.low else (other, one)
        for one, other in combinations(points, 2)
        if one.high < other.low or other.high < one.low
    ]
    against = [f"{worse.label} below {better.label}" for worse, better in decided if worse.printed > better.printed]
    sentence = f"Order of {what}: Kendall's τ {tau:.2f} over {len(points)} defenses. "
    if not decided:
        return f"{sentence}Our intervals separate no pair."
    pairs = len(points) * (len(points) - 1) // 2
    sentence += (
        f"Our intervals separate {len(decided)} of {pairs} pairs, {len(against)} of them against the paper's order"
    )
    more = f" and {len(against) - NAMED_PAIRS} more" if len(against) > NAMED_PAIRS else ""
    return f"{sentence}{': ' if against else ''}{', '.join(against[:NAMED_PAIRS])}{more}."
