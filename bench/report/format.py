"""How numbers and names look: each number is formatted here, once, for every kind of table."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bench.core.text import plain, signed
from bench.records.metrics import Estimate
from bench.records.schema import Outcome

NONE = "–"
_STATUS = {"out-of-memory": "memory", "not-applicable": "n/a"}
_ARXIV = re.compile(r"(?<![\d.])\d{4}\.\d{4,5}(?![\d.])")


@dataclass(frozen=True)
class Shown:
    """One entry of a table, ready to print.

    Attributes:
        text: the number or the word.
        interval: its 95 % interval, "" if none.
        suffix: what belongs behind the number, such as "of 120".
        value: what a sort goes by, None for entries without a number.
        band: low, value and high in percent of a 0 to 100 scale, for accuracies.
        title: the long form, for whoever asks.
        note: number of its footnote, 0 if none.
    """

    text: str = NONE
    interval: str = ""
    suffix: str = ""
    value: float | None = None
    band: tuple[float, float, float] | None = None
    title: str = ""
    note: int = 0

    def noted(self, note: int) -> Shown:
        """The same with a footnote."""
        return replace(self, note=note)

    def bound(self, sign: str, why: str) -> Shown:
        """The same as a bound (`sign` is ≤ or ≥), with the reason why it is no more than that."""
        return self if self.value is None else replace(self, text=f"{sign} {self.text}", title=why)


def share(estimate: Estimate | None, count: bool = False) -> Shown:
    """A share in percent; with `count` the number of images that it is of stands behind it."""
    if estimate is None:
        return Shown()
    if estimate.n == 0:
        return Shown(suffix="of 0" if count else "", title="No image counts here.")
    low, value, high = (round(100 * one, 1) for one in (estimate.low, estimate.value, estimate.high))
    return Shown(
        text=f"{value:.1f}",
        interval=f"{low:.1f}–{high:.1f}",
        suffix=f"of {estimate.n}" if count else "",
        value=100 * estimate.value,
        band=(low, value, high),
        title=f"{value:.1f} % of {estimate.n} images, 95 % interval {low:.1f} to {high:.1f}",
    )


def points(estimate: Estimate | None) -> Shown:
    """A difference of two shares in percentage points."""
    if estimate is None or estimate.n == 0:
        return Shown()
    low, value, high = (signed(100 * one) for one in (estimate.low, estimate.value, estimate.high))
    return Shown(
        text=value,
        interval=f"{low} to {high}" if estimate.low < 0 else f"{low}–{high}",
        value=100 * estimate.value,
        title=f"{value} points over {estimate.n} images, paired 95 % interval {low} to {high}",
    )


def ratio(times: Mapping[str, float], machine: str) -> Shown:
    """How many times as long a defended model takes, from the times of Latency for one batch size."""
    value = times.get("ratio", math.nan)
    if math.isnan(value):
        return Shown()
    title = f"{times.get('defended', math.nan):.3g} ms an image, bare {times.get('bare', math.nan):.3g} ms ({machine})"
    return Shown(f"{value:.2f}×", value=value, title=title)


def duration(seconds: float) -> Shown:
    """A time that a reader can grasp."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return Shown(f"{seconds / length:.3g} {unit}", value=seconds, title=f"{seconds:.0f} s")
    return Shown(f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s", value=seconds)


def failed(status: str, reason: str, note: int = 0) -> Shown:
    """A cell that has no number says so."""
    return Shown(_STATUS.get(status, status), title=f"{status}: {plain(reason)}", note=note)


def lost(outcome: Outcome) -> str:
    """A record that fits no board, in one line."""
    return f"{plain(str(outcome.cell))}: {outcome.status}: {plain(outcome.reason)}"


def arxiv(paper: str) -> str | None:
    """The address of the paper if its arXiv id is named."""
    found = _ARXIV.search(paper)
    return f"https://arxiv.org/abs/{found[0]}" if found else None
