"""ROC curves that were measured: how well scores tell the right class from others, and attacked images from clean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from itertools import groupby

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bench.errors import InputError
from bench.outcome import Cell
from bench.report.shown import plain
from bench.report.svg import Panel, Series, lines
from bench.store import Store, write

_TICKS = tuple((number / 5, f"{number / 5:g}") for number in range(6))


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Trace:
    """One ROC curve.

    Attributes:
        auc, low, high: the area under it with its 95 % interval, from resampled images.
        false_positives, true_positives: rates from 0 to 1 at falling thresholds, at most 101 points.
    """

    auc: float
    low: float
    high: float
    false_positives: tuple[float, ...]
    true_positives: tuple[float, ...]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Roc:
    """The ROC curves of one cell.

    Attributes:
        cell: whose images.
        clean, attacked: of the right class against all others, on the defended model (micro-average).
        rejected: of attacked against clean images by how far the defense is from rejecting them; None for
            one that never rejects.
        fingerprints: as in the cell's record; with others they are not those of its images.
    """

    cell: Cell
    clean: Trace
    attacked: Trace
    rejected: Trace | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)


_ROC = TypeAdapter(Roc)


def save(store: Store, roc: Roc) -> None:
    """Writes it beside the records."""
    write(store.folder.joinpath("roc", *roc.cell.group, f"{roc.cell.slug}.json"), _ROC.dump_json(roc).decode() + "\n")


def load(store: Store) -> list[Roc]:
    """Those of the records as they are now; raises InputError where a file is none."""
    found = []
    for path in sorted((store.folder / "roc").glob("*/*/*.json")):
        try:
            roc = _ROC.validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"{path} is no ROC curve. Delete it, or make it again with: bench curve --roc.") from error
        record = store.load(roc.cell)
        if record and record.fingerprints == roc.fingerprints:
            found.append(roc)
    return found


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
