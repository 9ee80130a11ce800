"""All charts of the site: curves along a parameter, ROC curves and times, each with its data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from bench.core.text import csv_text, plain
from bench.records.roc import Roc
from bench.records.samples import Sample
from bench.records.schema import Latency
from bench.report.charts.curves import CURVE_COLUMNS, curve_rows, curve_svg, find_curves
from bench.report.charts.roc import roc_groups, roc_svg
from bench.report.charts.svg import Bar, bar_chart
from bench.report.flags import is_bare
from bench.report.urls import file_name


@dataclass(frozen=True)
class Chart:
    """Pictures that belong together.

    Attributes:
        group: the heading of its part of the page.
        slug: names its files.
        title, conditions: what it shows, and under which conditions.
        pictures: file name -> SVG for a page and as a file of its own.
        data: all numbers as CSV.
    """

    group: str
    slug: str
    title: str
    conditions: str
    pictures: Mapping[str, tuple[str, str]]
    data: str

    @property
    def inline(self) -> list[tuple[str, Markup]]:
        """(file name, SVG for a page); its template has escaped every name."""
        return [(name, Markup(svg)) for name, (svg, _) in self.pictures.items()]  # noqa: S704  # see above

    @property
    def files(self) -> Iterator[tuple[str, str]]:
        """(file name, content) of all its files."""
        yield f"{self.slug}.csv", self.data
        for name, (_, svg) in self.pictures.items():
            yield name, svg


def charts(samples: Sequence[Sample], latencies: Sequence[Latency], rocs: Sequence[Roc]) -> list[Chart]:
    """All charts that these records allow, in order."""
    return [*_curves(samples), *_rocs(rocs, samples), *_times(latencies)]


def _curves(samples: Sequence[Sample]) -> Iterator[Chart]:
    for curve, lines in find_curves(samples).items():
        pictures = {}
        for measure in curve.measures:
            if inline := curve_svg(curve, lines, measure):
                name = f"{curve.slug}-{measure.replace('_', '-')}.svg"
                pictures[name] = inline, curve_svg(curve, lines, measure, alone=True)
        data = csv_text([CURVE_COLUMNS, *curve_rows(curve, lines)])
        yield Chart("Along a parameter", curve.slug, curve.title, curve.conditions, pictures, data)


def _rocs(rocs: Sequence[Roc], samples: Sequence[Sample]) -> Iterator[Chart]:
    bare = {one.cell.defense for one in samples if is_bare(one.defense)}
    for cell, members in roc_groups(rocs, bare):
        words = (cell.dataset, cell.model, cell.goal, f"effort {cell.effort}", f"seed {cell.seed}")
        slug = file_name(f"roc {cell.attack} {cell.tier}", *words, str(cell.images))
        picture = roc_svg(cell, members, bare), roc_svg(cell, members, bare, alone=True)
        head = ("attack", "tier", "defense", "of", "auc", "low", "high", "false_positive_rate", "true_positive_rate")
        rows = [
            (cell.attack, cell.tier, one.cell.defense, name, trace.auc, trace.low, trace.high, *point)
            for one in members
            for name, trace in (("clean", one.clean), ("attacked", one.attacked), ("rejected", one.rejected))
            if trace
            for point in zip(trace.false_positives, trace.true_positives, strict=True)
        ]
        title = plain(f"{cell.attack}, {cell.tier} attacker")
        yield Chart("ROC", slug, title, plain(" · ".join(words)), {f"{slug}.svg": picture}, csv_text([head, *rows]))


def _times(latencies: Sequence[Latency]) -> Iterator[Chart]:
    def place(one: Latency) -> tuple[str, str, str]:
        return one.dataset, one.model, one.machine

    for (dataset, model, machine), group in groupby(sorted(latencies, key=place), key=place):
        members = list(group)
        slug = file_name(f"time {dataset}", model, machine)
        pictures = {}
        for size in sorted({size for one in members for size, ms in one.batches.items() if "defended" in ms}):
            timed = [(one.defense, one.batches[size]) for one in members if "defended" in one.batches.get(size, {})]
            bars = sorted((_bar(*one) for one in timed), key=lambda bar: (bar.value, bar.label))
            words = f"Time for an image in batches of {size}", f"ms per image, batches of {size}"
            pictures[f"{slug}-{size}.svg"] = bar_chart(bars, *words), bar_chart(bars, *words, alone=True)
        head = ("dataset", "model", "machine", "defense", "batch", "what", "value")
        rows = [
            (dataset, model, machine, one.defense, size, name, value)
            for one in members
            for size, ms in one.batches.items()
            for name, value in ms.items()
        ]
        if pictures:
            conditions = plain(f"{dataset} · {model}")
            yield Chart("Time", slug, plain(machine), conditions, pictures, csv_text([head, *rows]))


def _bar(defense: str, ms: Mapping[str, float]) -> Bar:
    value = ms["defended"]
    words = f"{value:.3g} ms" + (f", {ms['ratio']:.2f}×" if "ratio" in ms else "")
    return Bar(plain(defense), value, ms.get("defended_low", value), ms.get("defended_high", value), words)
