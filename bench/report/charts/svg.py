"""Line and bar charts as SVG: small, legible without colours and in the dark, and the same bytes everywhere.

A plotting library may write other bytes with each version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.report.html import render

WIDTH, HEIGHT = 460, 290
LEFT, RIGHT, TOP, BOTTOM = 50, 118, 30, 42
LABEL = 13
"""Distance of two labels; all of these are in the units of the picture."""
COLOURS = 6
"""The palette of Okabe and Ito without yellow, which is illegible on white; black is for the baseline."""
SHAPES = (
    "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0",
    "M-3-3h6v6h-6z",
    "M0-3.8L3.6 2.8h-7.2z",
    "M0-4L4 0 0 4-4 0z",
)


@dataclass(frozen=True)
class Series:
    """One line: places, values, and the ends of their intervals (none if `low` is empty)."""

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    baseline: bool = False
    marked: bool = True


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title, x_label, y_label: its texts; `tint` colours the title.
        series: at most 24 can be distinguished.
        x_ticks: (place, text).
        y_range: lowest and highest value.
        log: whether the x axis is logarithmic.
        diagonal: whether to draw the diagonal, the ROC curve of guessing.
        height: of the picture.
    """

    title: str
    series: tuple[Series, ...]
    x_label: str
    y_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_range: tuple[float, float]
    tint: str = ""
    log: bool = False
    diagonal: bool = False
    height: int = HEIGHT

    def x(self, value: float) -> float:
        """The horizontal position of a place in the picture."""
        ends = [self._scaled(one) for one in (self.x_ticks[0][0], self.x_ticks[-1][0])]
        share = (self._scaled(value) - ends[0]) / ((ends[1] - ends[0]) or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """The vertical position of a value in the picture."""
        low, high = self.y_range
        return self.height - BOTTOM - (value - low) / (high - low) * (self.height - TOP - BOTTOM)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value

    @property
    def y_ticks(self) -> list[tuple[float, str]]:
        """Round values within the range."""
        low, high = self.y_range
        step = round_step((high - low) / 5)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        return [(self.y(one * step), f"{one * step:g}".replace("-", "−")) for one in range(first, last + 1)]

    @property
    def x_marks(self) -> list[tuple[float, str]]:
        """The ticks whose texts do not overlap."""
        kept: list[tuple[float, str]] = []
        for place, words in self.x_ticks:
            at = self.x(place)
            if not kept or at - kept[-1][0] > 3.6 * (len(words) + len(kept[-1][1])):
                kept.append((at, words))
        return kept

    @property
    def lines(self) -> list[Line]:
        """The series, with labels that keep their distance."""
        order = sorted(range(len(self.series)), key=lambda one: self.y(self.series[one].y[-1]))
        places: dict[int, float] = {}
        free = -math.inf
        for number in order:
            places[number] = max(self.y(self.series[number].y[-1]), free)
            free = places[number] + LABEL
        free = self.height - BOTTOM
        for number in reversed(order):  # labels beyond the bottom push back up
            places[number] = min(places[number], free)
            free = places[number] - LABEL
        colours = iter(range(len(self.series)))
        return [
            Line(self, series, places[place], None if series.baseline else next(colours))
            for place, series in enumerate(self.series)
        ]


@dataclass(frozen=True)
class Line:
    """A series in a panel; `number` chooses colour, dashes and marker, None is the baseline."""

    panel: Panel
    series: Series
    label_y: float
    number: int | None

    @property
    def points(self) -> list[tuple[float, float]]:
        """The positions of its values."""
        return [(self.panel.x(x), self.panel.y(y)) for x, y in zip(self.series.x, self.series.y, strict=True)]

    @property
    def path(self) -> str:
        """The line through all points."""
        return _path(self.points)

    @property
    def band(self) -> str:
        """The area of the intervals, "" if there are none."""
        if not self.series.low:
            return ""
        places = [self.panel.x(x) for x in self.series.x]
        above = [(x, self.panel.y(y)) for x, y in zip(places, self.series.high, strict=True)]
        below = [(x, self.panel.y(y)) for x, y in zip(places, self.series.low, strict=True)]
        return _path(above + below[::-1]) + "z"

    @property
    def classes(self) -> str:
        """The CSS classes for colour and dashes."""
        return "base" if self.number is None else f"c{self.number % COLOURS} d{self.number // COLOURS % 4}"

    @property
    def shape(self) -> str:
        """The path of its marker."""
        return SHAPES[(self.number or 0) % len(SHAPES)]


@dataclass(frozen=True)
class Bar:
    """A bar: its value, the ends of its interval, and the text at its end."""

    label: str
    value: float
    low: float
    high: float
    text: str


def line_chart(panels: Sequence[Panel], title: str, alone: bool = False) -> str:
    """Panels as one picture each; `alone` as a single picture with its own style, for a file."""
    height = max(HEIGHT, *(TOP + BOTTOM + LABEL * len(one.series) for one in panels))
    panels = [replace(one, height=height) for one in panels]
    given = {"title": title, "alone": alone, "W": WIDTH, "H": height, "edges": (LEFT, RIGHT, TOP, BOTTOM)}
    pictures = [panels] if alone else [[one] for one in panels]
    return "".join(render("lines.svg.j2", panels=some, **given) for some in pictures)


def bar_chart(values: Sequence[Bar], title: str, x_label: str, alone: bool = False) -> str:
    """Horizontal bars on a logarithmic axis; `alone` as for `line_chart`."""
    ends = [max(one, 1e-4) for bar in values for one in (bar.low, bar.high, bar.value)]
    low, high = (10.0 ** way(math.log10(one)) for way, one in ((math.floor, min(ends)), (math.ceil, max(ends) * 1.05)))
    wide = 620 - 190 - 90

    def x(value: float) -> float:
        return 190 + wide * math.log(max(value, low) / low) / math.log(high / low)

    ticks = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    marks = [(x(one), f"{one:g}") for one in ticks]
    placed = [(bar, x(bar.value), x(bar.low), x(bar.high)) for bar in values]
    return render("bars.svg.j2", bars=placed, marks=marks, title=title, x_label=x_label, alone=alone, wide=620)


def round_step(step: float) -> float:
    """The next larger of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(power * one for one in (1, 2, 5, 10) if power * one >= step - 1e-12)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
