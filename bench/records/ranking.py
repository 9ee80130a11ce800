"""Ranks with ties: rows are set apart only where the images tell them apart, corrected for the number of rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bench.records.intervals import Comparison, PerImage

LEVEL = 0.05
"""The chance that a row is set apart from any other row although they are equally good."""


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which hypotheses Holm's step-down procedure rejects (Scandinavian Journal of Statistics 6, 1979)."""
    order = sorted(range(len(p_values)), key=lambda one: p_values[one])
    rejected = [False] * len(p_values)
    for step, one in enumerate(order):
        if p_values[one] * (len(p_values) - step) >= level:
            break
        rejected[one] = True
    return rejected


def better_than(rows: Mapping[str, PerImage], reference: PerImage) -> set[str]:
    """The rows with a higher mean than `reference` beyond the paired interval, with Holm's correction."""
    pairs = [Comparison(vector, reference) for vector in rows.values()]
    apart = holm([pair.p_value for pair in pairs])
    return {row for row, pair, sure in zip(rows, pairs, apart, strict=True) if sure and pair.estimate.value > 0}


def ranks(rows: Mapping[str, PerImage], barred: Collection[str] = ()) -> dict[str, int]:
    """The rank of each row that is not barred: one more than the number of rows that are better.

    A row is better if its mean is higher beyond the paired interval, with Holm's correction over the other rows; rows
    that cannot be told apart are thus tied. No row is ranked above a row with a higher mean. Barred rows have no rank,
    and count among the better ones: nobody gains from their absence.

    Args:
        rows: name -> whether each image survives.
        barred: the names of those that are not ranked.
    """
    level = {row: float(vector.values.mean()) for row, vector in rows.items()}
    order = sorted(rows, key=lambda row: -level[row])
    ranked: dict[str, int] = {}
    for row in order:
        better = better_than({other: rows[other] for other in order if other != row}, rows[row])
        above = sum(level[other] > level[row] for other in better)  # the means may be over other images than the pair
        ranked[row] = max([1 + above, *ranked.values()])
    return {row: rank for row, rank in ranked.items() if row not in barred}
