"""Curves: accuracy, δ and β as one parameter of an attack or a defense grows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.text import plain
from bench.plugins.registry import Kind
from bench.records.command import FEWEST_CURVE_VALUES
from bench.records.intervals import Estimate
from bench.records.metrics import MEASURES
from bench.records.samples import Sample
from bench.records.schema import TIERS, Tier
from bench.report.charts.svg import Panel, Series, line_chart, round_step
from bench.report.flags import is_bare
from bench.report.urls import file_name

AXES = {
    "attacked_accuracy": "accuracy under attack, %",
    "delta": "δ, points",
    "beta": "β, %",
    "clean_accuracy": "clean accuracy, %",
}
"""Measure -> the label of its axis."""
CURVE_COLUMNS = (
    "dataset", "model", "goal", "effort", "images", "kind", "plugin", "parameter", "value", "line", "tier", "measure",
    "estimate", "low", "high", "n",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Curve:
    """Cells that differ only in one number and in the plugin on the other side.

    Attributes:
        dataset, model, goal, effort, images: as in Cell.
        kind, plugin: which plugin has the parameter.
        parameter: the one that grows.
        fixed: its other parameters, as JSON.
    """

    dataset: str
    model: str
    goal: str
    effort: str
    images: int
    kind: Kind
    plugin: str
    parameter: str
    fixed: str

    @property
    def slug(self) -> str:
        """A file name without an ending."""
        words = (self.dataset, self.model, self.goal, self.effort, str(self.images), self.kind, self.fixed)
        return file_name(f"{self.plugin} {self.parameter}", *words)

    @property
    def title(self) -> str:
        """What varies."""
        return plain(f"{self.plugin}: {self.parameter}")

    @property
    def measures(self) -> list[str]:
        """What to draw; an attack does not change clean accuracy."""
        return [one for one in AXES if self.kind == "defense" or one != "clean_accuracy"]

    @property
    def conditions(self) -> str:
        """What does not vary."""
        images = f"{self.images} images" if self.images else "all images"
        return plain(f"{self.dataset} · {self.model} · {images} · {self.goal} · effort {self.effort}")


Points = Mapping[float, Sample]
"""Value of the parameter -> its cell."""
Lines = Mapping[tuple[str, Tier], Points]
"""(text of the other plugin, tier) -> points."""


def find_curves(samples: Iterable[Sample]) -> dict[Curve, Lines]:
    """All curves: each along a parameter with at least three values while all else is equal."""
    places: dict[Curve, dict[tuple[str, Tier], dict[float, Sample]]] = {}
    for sample in samples:
        if sample.facts:
            for curve, line, value in _places(sample):
                places.setdefault(curve, {}).setdefault((line, sample.cell.tier), {})[value] = sample
    curves: dict[Curve, Lines] = {}
    for curve, lines in sorted(places.items(), key=lambda item: item[0]):
        long = {
            key: dict(sorted(points.items()))
            for key, points in sorted(lines.items())
            if len(points) >= FEWEST_CURVE_VALUES
        }
        if long:
            curves[curve] = long
    return curves


def _places(sample: Sample) -> Iterator[tuple[Curve, str, float]]:
    """The curves that a cell may lie on: (curve, line, value)."""
    cell = sample.cell
    kinds: tuple[tuple[Kind, str], ...] = (("attack", cell.defense), ("defense", cell.attack))
    for kind, line in kinds:
        plugin = sample.attack if kind == "attack" else sample.defense
        if plugin:
            for name, value in plugin.parameters.items():
                if _is_number(value):
                    fixed = json.dumps({key: one for key, one in sorted(plugin.parameters.items()) if key != name})
                    conditions = (cell.dataset, cell.model, cell.goal, cell.effort, cell.images)
                    yield Curve(*conditions, kind, plugin.name, name, fixed), line, float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def curve_svg(curve: Curve, lines: Lines, measure: str, alone: bool = False) -> str:
    """One measure as SVG, the two attackers side by side; "" if there is nothing to draw."""
    series = {
        (tier, not baseline, text): _series(text, estimates, baseline)
        for (text, tier), points in lines.items()
        if (estimates := _estimates(points, measure))
        for baseline in [curve.kind == "attack" and is_bare(next(iter(points.values())).defense)]
    }
    values = sorted({value for one in series.values() for value in one.x})
    if not values:
        return ""
    ends = [end for one in series.values() for end in (*one.low, *one.high)]
    low, high = (0.0, 100.0) if measure != "delta" else (min(0.0, *ends), max(10.0, *ends))
    step = round_step((high - low) / 5)
    panels = [
        Panel(
            title=f"{tier} attacker",
            series=tuple(one for key, one in sorted(series.items()) if key[0] == tier),
            x_label=plain(f"{curve.parameter} of {curve.plugin}"),
            y_label=AXES[measure],
            x_ticks=tuple((value, format_value(value)) for value in values),
            y_range=(step * math.floor(low / step), step * math.ceil(high / step - 1e-9)),
            tint=tier,
            log=values[0] > 0 and values[-1] >= 8 * values[0],
        )
        for tier in TIERS
    ]
    title = f"{AXES[measure]}, {curve.title}, {curve.conditions}"
    return line_chart([one for one in panels if one.series], title, alone)


def _estimates(points: Points, measure: str) -> dict[float, Estimate]:
    """Value -> estimate, where there is one."""
    estimates = {
        value: MEASURES[measure](*sample.facts.values(), design=sample.design) for value, sample in points.items()
    }
    return {value: one for value, one in estimates.items() if one is not None and one.n}


def _series(text: str, estimates: Mapping[float, Estimate], baseline: bool) -> Series:
    y, low, high = (tuple(100 * getattr(one, name) for one in estimates.values()) for name in ("value", "low", "high"))
    return Series(plain(text), tuple(estimates), y, low, high, baseline)


def curve_rows(curve: Curve, lines: Lines) -> Iterator[tuple[object, ...]]:
    """All points of a curve as rows of `CURVE_COLUMNS`; shares from 0 to 1."""
    conditions = (curve.dataset, curve.model, curve.goal, curve.effort, curve.images)
    for (line, tier), points in lines.items():
        for measure in AXES:
            for value, estimate in _estimates(points, measure).items():
                numbers = (float(f"{number:.6g}") for number in (estimate.value, estimate.low, estimate.high))
                plugin = (curve.kind, curve.plugin, curve.parameter, float(f"{value:.6g}"))
                yield (*conditions, *plugin, line, tier, measure, *numbers, estimate.n)


def format_value(value: float) -> str:
    """The value of a parameter; multiples of 1/255 as such."""
    levels = value * 255
    if 0 < value <= 1 and abs(levels - round(levels)) < 1e-6 and abs(value * 100 - round(value * 100)) > 1e-6:
        return f"{round(levels)}/255"
    return f"{value:.4g}"
