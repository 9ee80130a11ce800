"""Everything that is drawn for the site: curves along a parameter, ROC curves and times, each with its data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from bench.core.text import csv_text, plain
from bench.records.roc import Roc
from bench.records.schema import Latency
from bench.report.charts import curves, roc
from bench.report.charts.svg import Bar, bars
from bench.report.grouping import Sample
from bench.report.urls import file_name


@dataclass(frozen=True)
class Chart:
    """Pictures that belong together.

    Attributes:
        group: the heading of its part of the page.
        slug: names its files.
        title, conditions: what it shows, and what for.
        pictures: file name -> (the picture within a page, as a file of its own), as SVG.
        data: all of it as CSV.
    """

    group: str
    slug: str
    title: str
    conditions: str
    pictures: Mapping[str, tuple[str, str]]
    data: str

    @property
    def drawn(self) -> list[tuple[str, Markup]]:
        """(file name, picture): the templates of the pictures escape what stands in names."""
        return [(name, Markup(inside)) for name, (inside, _) in self.pictures.items()]  # noqa: S704  # see above

    @property
    def files(self) -> Iterator[tuple[str, str]]:
        """(file name, content) of all its files."""
        yield f"{self.slug}.csv", self.data
        for name, (_, alone) in self.pictures.items():
            yield name, alone


def charts(samples: Iterable[Sample], latencies: Sequence[Latency], rocs: Sequence[Roc]) -> list[Chart]:
    """All there are, in order."""
    return [*_curves(samples), *_rocs(rocs), *_times(latencies)]


def _curves(samples: Iterable[Sample]) -> Iterator[Chart]:
    for curve, found in curves.find(samples).items():
        pictures = {}
        for measure in curve.measures:
            if inside := curves.draw(curve, found, measure):
                name = f"{curve.slug}-{measure.replace('_', '-')}.svg"
                pictures[name] = inside, curves.draw(curve, found, measure, alone=True)
        data = csv_text([curves.FIELDS, *curves.table(curve, found)])
        yield Chart("Along a parameter", curve.slug, curve.title, curve.conditions, pictures, data)


def _rocs(rocs: Sequence[Roc]) -> Iterator[Chart]:
    for cell, members in roc.groups(rocs):
        words = (cell.dataset, cell.model, cell.goal, f"effort {cell.effort}", f"seed {cell.seed}")
        slug = file_name(f"roc {cell.attack} {cell.tier}", *words, str(cell.images))
        pictures = {f"{slug}.svg": (roc.draw(cell, members), roc.draw(cell, members, alone=True))}
        fields = ("attack", "tier", "defense", "of", "auc", "low", "high", "false_positive_rate", "true_positive_rate")
        rows = [
            (cell.attack, cell.tier, one.cell.defense, name, trace.auc, trace.low, trace.high, *point)
            for one in members
            for name, trace in (("clean", one.clean), ("attacked", one.attacked), ("rejected", one.rejected))
            if trace
            for point in zip(trace.false_positives, trace.true_positives, strict=True)
        ]
        title = plain(f"{cell.attack}, {cell.tier} attacker")
        yield Chart("ROC", slug, title, plain(" · ".join(words)), pictures, csv_text([fields, *rows]))


def _times(latencies: Sequence[Latency]) -> Iterator[Chart]:
    def where(one: Latency) -> tuple[str, str, str]:
        return one.dataset, one.model, one.machine

    for (dataset, model, machine), group in groupby(sorted(latencies, key=where), key=where):
        members = list(group)
        slug = file_name(f"time {dataset}", model, machine)
        sizes = sorted({size for one in members for size, ms in one.batches.items() if "defended" in ms})
        pictures = {}
        for size in sizes:
            values = [
                _bar(one.defense, one.batches[size]) for one in members if "defended" in one.batches.get(size, {})
            ]
            values.sort(key=lambda bar: (bar.value, bar.label))
            told = (f"Time of an image in batches of {size}", f"ms an image, batches of {size}")
            pictures[f"{slug}-{size}.svg"] = bars(values, *told), bars(values, *told, alone=True)
        fields = ("dataset", "model", "machine", "defense", "batch", "what", "value")
        rows = [
            (dataset, model, machine, one.defense, size, name, value)
            for one in members
            for size, ms in one.batches.items()
            for name, value in ms.items()
        ]
        if pictures:
            conditions = plain(f"{dataset} · {model}")
            yield Chart("Time", slug, plain(machine), conditions, pictures, csv_text([fields, *rows]))


def _bar(defense: str, ms: Mapping[str, float]) -> Bar:
    value = ms["defended"]
    ratio = f", {ms['ratio']:.2f}×" if "ratio" in ms else ""
    return Bar(
        plain(defense), value, ms.get("defended_low", value), ms.get("defended_high", value), f"{value:.3g} ms{ratio}"
    )
