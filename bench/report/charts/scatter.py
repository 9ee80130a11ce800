"""A board as one picture: clean accuracy against accuracy under attack, a dot for each defense."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.records.format import DASH, Formatted
from bench.report.answers import BoardAnswer
from bench.report.board import Row
from bench.report.evidence import UPPER_BOUND
from bench.report.html import render

WIDE, HIGH = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 14, 40


@dataclass(frozen=True)
class Dot:
    """A defense in the picture, in its units.

    Attributes:
        number: its place in the short table, 0 if it is not there.
        x, y, low, high: the dot and its interval.
        oblivious: where the number against the attacker without knowledge is, None if unknown or the same.
        certified: what is proven, None if nothing.
        words: name and numbers.
    """

    number: int
    x: float
    y: float
    low: float
    high: float
    oblivious: float | None
    certified: float | None
    words: str
    kind: str


def scatter(answer: BoardAnswer, alone: bool = False) -> str:
    """The picture as SVG, "" if no row has both numbers; `alone` with its own style, for a file."""
    rows = [row for row in answer.board.rows if row.clean.value is not None and answer.attacked(row).value is not None]
    if not rows:
        return ""
    clean = [row.clean.value for row in rows if row.clean.value is not None]
    least = max(0.0, 10 * math.floor((min(clean) - 2) / 10))
    step = 10 if least >= 40 else 20

    def x(value: float) -> float:
        return _LEFT + (value - least) / (100 - least) * (WIDE - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return HIGH - _BOTTOM - value / 100 * (HIGH - _TOP - _BOTTOM)

    def dot(row: Row) -> Dot:
        number, other = answer.attacked(row), answer.attacked(row, "oblivious")
        value = number.value or 0.0
        proof = answer.certified(row).value
        return Dot(
            number=answer.best.index(row) + 1 if row in answer.best else 0,
            x=x(row.clean.value or 0.0),
            y=y(value),
            low=y(value if number.low is None else number.low),
            high=y(value if number.high is None else number.high),
            oblivious=y(other.value) if other.value is not None and other.value - value > 1 else None,
            certified=y(proof) if proof else None,
            words=_words(row, number, other),
            kind=_kind(row, answer),
        )

    dots = sorted(map(dot, rows), key=lambda one: (one.number > 0, -one.number))
    line = [one for one in rows if one.baseline or one.rank not in ("", DASH)]
    edge = frontier([(row.clean.value or 0.0, answer.attacked(row).value or 0.0) for row in line])
    base = next((dot(row).y for row in rows if row.baseline), None)
    return render(
        "scatter.svg.j2",
        title=answer.title,
        alone=alone,
        dots=dots,
        frontier="".join(f"{'L' if place else 'M'}{x(a):.1f} {y(b):.1f}" for place, (a, b) in enumerate(edge)),
        base=base,
        basis=answer.board.basis,
        x_ticks=[(x(one), str(one)) for one in range(int(least), 101, step)],
        y_ticks=[(y(one), str(one)) for one in range(0, 101, 20)],
        W=WIDE,
        H=HIGH,
        edges=(_LEFT, _RIGHT, _TOP, _BOTTOM),
    )


def frontier(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the line above which there is nothing, from its first point: none is better in both numbers."""
    corners: list[tuple[float, float]] = []
    best = -math.inf
    for clean, attacked in sorted(points, key=lambda one: (-one[0], -one[1])):
        if attacked > best:
            corners += [(clean, max(best, 0.0)), (clean, attacked)]
            best = attacked
    return corners[1:]  # down to the axis it would look like an interval


def _kind(row: Row, answer: BoardAnswer) -> str:
    if row.baseline:
        return "none"
    if row.section == UPPER_BOUND:
        return "bound"
    if row not in answer.above:
        return "below"
    return "barred" if row.rank == DASH else ""


def _words(row: Row, number: Formatted, other: Formatted) -> str:
    attacked = f"under attack {number.text} % ({number.interval}), oblivious {other.text} %"
    return f"{row.defense.text}: clean {row.clean.text} %, {attacked}"
