"""ROC curves: how well scores tell the true class from others, and attacked images from clean ones."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import groupby

from bench.core.text import plain
from bench.records.roc import Roc, Trace
from bench.records.schema import Cell
from bench.report.charts.svg import Panel, Series, line_chart

_TICKS = tuple((number / 5, f"{number / 5:g}") for number in range(6))


def roc_groups(rocs: Sequence[Roc], bare: Container[str]) -> Iterator[tuple[Cell, list[Roc]]]:
    """The curves of one attack and attacker together, one for each defense; those in `bare` come first."""

    def same(roc: Roc) -> tuple[str, ...]:
        cell = roc.cell
        words = (cell.dataset, cell.model, cell.attack, cell.tier, cell.goal, cell.effort)
        return (*words, str(cell.images), str(cell.seed))

    ordered = sorted(rocs, key=lambda one: (same(one), one.cell.defense not in bare, one.cell.defense))
    for _, group in groupby(ordered, key=same):
        members = list(group)
        yield members[0].cell, members


def roc_svg(cell: Cell, members: Sequence[Roc], bare: Container[str], alone: bool = False) -> str:
    """One group as SVG: classification of attacked and of clean images, and detection if any defense detects."""

    def panel(title: str, traces: Sequence[tuple[str, Trace]], tint: str = "") -> Panel:
        series = tuple(
            Series(
                label=f"{trace.auc:.2f} {plain(defense)}",
                x=trace.false_positives,
                y=trace.true_positives,
                baseline=defense in bare,
                marked=False,
            )
            for defense, trace in traces
        )
        labels = "false positive rate (the label is the area)", "true positive rate"
        return Panel(title, series, *labels, _TICKS, (0.0, 1.0), tint, diagonal=True)

    panels = [
        panel("true class, attacked images", [(one.cell.defense, one.attacked) for one in members], cell.tier),
        panel("true class, clean images", [(one.cell.defense, one.clean) for one in members]),
    ]
    if detectors := [(one.cell.defense, one.rejected) for one in members if one.rejected]:
        panels.append(panel("attacked against clean images", detectors, cell.tier))
    return line_chart(panels, f"ROC, {plain(cell.attack)}, {cell.tier}", alone)
