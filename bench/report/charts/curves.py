"""Curves: what the records say of accuracy, δ and β as one parameter of an attack or a defense grows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench.core.text import plain
from bench.plugins.registry import Kind
from bench.records.command import LEAST
from bench.records.metrics import MEASURES, Estimate
from bench.records.schema import TIERS, PluginRecord, Tier
from bench.report.charts.svg import Panel, Series, lines, nice
from bench.report.grouping import Sample
from bench.report.urls import file_name

DRAWN = {
    "attacked_accuracy": "accuracy under attack, %",
    "delta": "δ, points",
    "beta": "β, %",
    "clean_accuracy": "clean accuracy, %",
}
"""Measure -> the words at its axis."""
FIELDS = (
    "dataset", "model", "goal", "effort", "images", "kind", "plugin", "parameter", "value", "line", "tier", "measure",
    "estimate", "low", "high", "n",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Curve:
    """Cells that differ in one number only, and in what the lines are.

    Attributes:
        dataset, model, goal, effort, images: as in Cell.
        kind, plugin: what has the parameter, as name.
        fixed: its other parameters, as JSON.
        parameter: the one that grows.
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
        return file_name(f"{self.plugin} {self.parameter}", *_identity(self))

    @property
    def title(self) -> str:
        """What is varied, in words."""
        return plain(f"{self.plugin}: {self.parameter}")

    @property
    def measures(self) -> list[str]:
        """What is drawn: an attack has no say in clean accuracy."""
        return [one for one in DRAWN if self.kind == "defense" or one != "clean_accuracy"]

    @property
    def conditions(self) -> str:
        """What stays as it is, in words."""
        images = f"{self.images} images" if self.images else "all images"
        words = (f"{self.dataset} · {self.model}", images, self.goal, f"effort {self.effort}")
        return plain(" · ".join(words))


Points = Mapping[float, Sample]
"""Value of the parameter -> its cell."""
Lines = Mapping[tuple[str, Tier], Points]
"""(the other plugin's text, tier) -> points."""


def find(samples: Iterable[Sample]) -> dict[Curve, Lines]:
    """All curves that there are: a parameter that has three values with all else equal."""
    found: dict[Curve, dict[tuple[str, Tier], dict[float, Sample]]] = {}
    for sample in samples:
        if sample.facts:
            for curve, line, value in _places(sample):
                found.setdefault(curve, {}).setdefault((line, sample.tier), {})[value] = sample
    kept = {curve: _long(lines) for curve, lines in found.items()}
    return {curve: kept[curve] for curve in sorted(kept) if kept[curve]}


def _long(found: Mapping[tuple[str, Tier], dict[float, Sample]]) -> Lines:
    """The lines with enough points, their values in order."""
    return {key: dict(sorted(points.items())) for key, points in sorted(found.items()) if len(points) >= LEAST}


def _places(sample: Sample) -> Iterator[tuple[Curve, str, float]]:
    """On which curves a cell may lie: (curve, line, value)."""
    cell = sample.outcomes[0].cell
    record = next((one.defense for one in sample.outcomes if one.defense), None)
    plugins: tuple[tuple[Kind, PluginRecord | None, str], ...] = (
        ("attack", sample.record, cell.defense),
        ("defense", record, cell.attack),
    )
    for kind, plugin, line in plugins:
        for name, value in (plugin.parameters if plugin else {}).items():
            if plugin and _number(value):
                fixed = json.dumps({key: one for key, one in sorted(plugin.parameters.items()) if key != name})
                where = (cell.dataset, cell.model, cell.goal, cell.effort, cell.images)
                yield Curve(*where, kind, plugin.name, name, fixed), line, float(value)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def draw(curve: Curve, found: Lines, measure: str, alone: bool = False) -> str:
    """The curve of one measure as SVG, the two attackers side by side."""
    estimates = {key: _estimates(points, measure) for key, points in found.items()}
    values = sorted({value for line in estimates.values() for value in line})
    if not values:
        return ""
    ends = [end for line in estimates.values() for one in line.values() for end in (one.low, one.high)]
    low, high = (0.0, 1.0) if measure != "delta" else (min(0.0, *ends), max(0.1, *ends))
    step = nice((high - low) * 20)
    y_range = (step * math.floor(100 * low / step), step * math.ceil(100 * high / step - 1e-9))
    panels = [
        Panel(
            title=f"{tier} attacker",
            series=tuple(
                _series(text, line)
                for (text, one), line in sorted(estimates.items(), key=lambda item: _order(item[0][0]))
                if one == tier and line
            ),
            x_label=plain(f"{curve.parameter} of {curve.plugin}"),
            y_label=DRAWN[measure],
            x_ticks=tuple((value, words(value)) for value in values),
            y_range=y_range,
            tint=tier,
            log=values[0] > 0 and values[-1] >= 8 * values[0],
        )
        for tier in TIERS
    ]
    title = f"{DRAWN[measure]}, {curve.title}, {curve.conditions}"
    return lines([one for one in panels if one.series], title, alone)


def _estimates(points: Points, measure: str) -> dict[float, Estimate]:
    """Value -> number, where there is one."""
    told = {value: MEASURES[measure](*sample.facts.values()) for value, sample in points.items()}
    return {value: one for value, one in told.items() if one is not None and one.n}


def _series(text: str, line: Mapping[float, Estimate]) -> Series:
    told = list(line.values())
    return Series(
        label=plain(text),
        x=tuple(line),
        y=tuple(100 * one.value for one in told),
        low=tuple(100 * one.low for one in told),
        high=tuple(100 * one.high for one in told),
        baseline=text == "none",
    )


def _order(text: str) -> tuple[bool, str]:
    return text != "none", text


def table(curve: Curve, found: Lines) -> Iterator[tuple[object, ...]]:
    """All points of a curve: a row of `FIELDS` for each value, line, attacker and measure; shares from 0 to 1."""
    for (line, tier), points in found.items():
        for measure in DRAWN:
            for value, one in _estimates(points, measure).items():
                numbers = (float(f"{number:.6g}") for number in (one.value, one.low, one.high))
                place = (*_identity(curve)[:5], curve.kind, curve.plugin, curve.parameter, float(f"{value:.6g}"))
                yield (*place, line, tier, measure, *numbers, one.n)


def _identity(curve: Curve) -> tuple[str, ...]:
    """What tells two curves of one parameter apart."""
    setting = (curve.dataset, curve.model, curve.goal, curve.effort, str(curve.images))
    return (*setting, curve.kind, curve.fixed)


def words(value: float) -> str:
    """A value of a parameter; 255ths as such."""
    levels = value * 255
    if 0 < value <= 1 and abs(levels - round(levels)) < 1e-6 and abs(value * 100 - round(value * 100)) > 1e-6:
        return f"{round(levels)}/255"
    return f"{value:.4g}"
