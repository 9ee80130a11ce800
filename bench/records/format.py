"""Numbers as tables print them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.core.text import plain, signed
from bench.records.intervals import Estimate
from bench.records.schema import Outcome

DASH = "–"
_STATUS = {"out-of-memory": "memory", "not-applicable": "n/a"}


@dataclass(frozen=True)
class Formatted:
    """A table entry, ready to print.

    Attributes:
        text: the number or word.
        interval: its 95 % interval, "" if none.
        suffix: goes behind the number, such as "of 120".
        value: the number to sort by, None if there is none.
        title: an explanation for a tooltip.
        note: the number of its footnote, 0 if none.
        spread: the values of several trainings, "" if there is one.
        low, high: the interval as numbers, None if there is none.
    """

    text: str = DASH
    interval: str = ""
    suffix: str = ""
    value: float | None = None
    title: str = ""
    note: int = 0
    spread: str = ""
    low: float | None = None
    high: float | None = None

    def as_bound(self, sign: str, reason: str) -> Formatted:
        """The same number as a bound (`sign` is ≤ or ≥), with the reason."""
        return self if self.value is None else replace(self, text=f"{sign} {self.text}", title=reason)


def format_share(estimate: Estimate | None, count: bool = False) -> Formatted:
    """A share in percent; with `count`, the number of images follows it."""
    if estimate is None:
        return Formatted()
    suffix = f"of {estimate.n}" if count else ""
    if estimate.n == 0:
        return Formatted(suffix=suffix, title="No image counts here.")
    low, value, high = (f"{round(100 * one, 1):.1f}" for one in (estimate.low, estimate.value, estimate.high))
    ends = 100 * estimate.low, 100 * estimate.high
    return Formatted(value, f"{low}–{high}", suffix, 100 * estimate.value, low=ends[0], high=ends[1])


def format_difference(estimate: Estimate | None) -> Formatted:
    """A difference of two shares in percentage points."""
    if estimate is None or estimate.n == 0:
        return Formatted()
    low, value, high = (signed(100 * one) for one in (estimate.low, estimate.value, estimate.high))
    return Formatted(value, f"{low} to {high}" if estimate.low < 0 else f"{low}–{high}", value=100 * estimate.value)


def format_gap(gap: Estimate) -> str:
    """A difference of two shares in percentage points with its interval, as one text."""
    low, value, high = (signed(100 * one) for one in (gap.low, gap.value, gap.high))
    return f"{value} ({low} to {high})" if gap.n else DASH


def format_ratio(times: Mapping[str, float]) -> Formatted:
    """How many times as long a defended model takes, from the times of a Latency for one batch size."""
    value = times.get("ratio", math.nan)
    return Formatted() if math.isnan(value) else Formatted(f"{value:.2f}×", value=value)


def format_duration(seconds: float) -> Formatted:
    """A time in hours, minutes or seconds."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return Formatted(f"{seconds / length:.3g} {unit}", value=seconds)
    return Formatted(f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s", value=seconds)


def format_failure(status: str, reason: str, note: int = 0) -> Formatted:
    """The status of a cell that has no number."""
    return Formatted(_STATUS.get(status, status), title=f"{status}: {plain(reason)}", note=note)


def failure_line(outcome: Outcome) -> str:
    """A failed cell and its reason on one line."""
    return f"{plain(str(outcome.cell))}: {outcome.status}: {plain(outcome.reason)}"
