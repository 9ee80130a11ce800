"""ROC curves that were measured: how well scores tell the right class from others, and attacked images from clean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from bench.core.text import plain
from bench.records.roc import Roc, Trace
from bench.records.schema import Cell
from bench.report.charts.svg import Panel, Series, lines

_TICKS = tuple((number / 5, f"{number / 5:g}") for number in range(6))


def groups(rocs: Sequence[Roc]) -> Iterator[tuple[Cell, list[Roc]]]:
    """Those of one attack and attacker together, one for each defense, the model without a defense first."""

    def same(roc: Roc) -> tuple[str, ...]:
        cell = roc.cell
        where = (cell.dataset, cell.model, cell.attack, cell.tier, cell.goal, cell.effort)
        return (*where, str(cell.images), str(cell.seed))

    every = sorted(rocs, key=lambda one: (same(one), one.cell.defense != "none", one.cell.defense))
    for _, group in groupby(every, key=same):
        members = list(group)
        yield members[0].cell, members


def draw(cell: Cell, members: Sequence[Roc], alone: bool = False) -> str:
    """One group as SVG: classification of attacked and of clean images, and detection where there is any."""
    panels = [
        _panel("right class, attacked images", [(one.cell.defense, one.attacked) for one in members], cell.tier),
        _panel("right class, clean images", [(one.cell.defense, one.clean) for one in members]),
    ]
    detectors = [(one.cell.defense, one.rejected) for one in members if one.rejected]
    if detectors:
        panels.append(_panel("attacked against clean images", detectors, cell.tier))
    return lines(panels, f"ROC, {plain(cell.attack)}, {cell.tier}", alone)


def _panel(title: str, traces: Sequence[tuple[str, Trace]], tint: str = "") -> Panel:
    return Panel(
        title=title,
        series=tuple(
            Series(
                label=f"{trace.auc:.2f} {plain(defense)}",
                x=trace.false_positives,
                y=trace.true_positives,
                baseline=defense == "none",
                marked=False,
            )
            for defense, trace in traces
        ),
        x_label="false positive rate (the label is the area)",
        y_label="true positive rate",
        x_ticks=_TICKS,
        y_range=(0.0, 1.0),
        tint=tint,
        diagonal=True,
    )
