"""A paper's table with our numbers: every value with its measurement, and the lists that these point to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from string import ascii_lowercase

from bench.papers.measure import Measurement, Measurements, Origin
from bench.papers.rank_agreement import agreement, comparable
from bench.papers.reported import Paper, Reported, ReportedTable
from bench.records.command import command
from bench.records.schema import Cell


@dataclass(frozen=True)
class ComparedValue:
    """A value of a paper and its measurement.

    Attributes:
        printed: as in the paper, "" if it has none.
        notes: the numbers of the notes on it.
        measurement: our number, or why there is none.
        letter: of its origin, "" without a number.
        run: the number of the command that measures it, 0 if it is measured or cannot be.
        reason: the number of the reason why it cannot be measured, 0 if it can.
    """

    printed: str
    notes: tuple[int, ...]
    measurement: Measurement
    letter: str = ""
    run: int = 0
    reason: int = 0

    @property
    def pointer(self) -> str:
        """What to print if there is no number: which command measures it, or which reason prevents that."""
        return f"run {self.run}" if self.run else f"n/a {self.reason}" if self.reason else ""


@dataclass(frozen=True)
class ComparedTable:
    """A table of a paper, ready to be printed.

    Attributes:
        table, paper: what is reported.
        rows: the values, a tuple for each row of the table.
        origins: by letter.
        runs, reasons: numbered from 1.
    """

    table: ReportedTable
    paper: Paper
    rows: tuple[tuple[ComparedValue, ...], ...]
    origins: Mapping[str, Origin]
    runs: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def headings(self) -> list[list[tuple[str, int, tuple[int, ...]]]]:
        """For each level the headings (text, width in columns, notes); equal neighbours are merged above the lowest."""
        columns = self.table.columns
        depth = max(len(column.heads) for column in columns)
        levels: list[list[tuple[str, int, tuple[int, ...]]]] = []
        for level in range(depth - 1):
            groups = groupby(column.heads[: level + 1] for column in columns)
            levels.append([(heads[-1], len(list(group)), ()) for heads, group in groups])
        lowest = [(one.heads[-1], 1, tuple(self.table.marks(None, place))) for place, one in enumerate(columns)]
        return [*levels, lowest]

    @property
    def labels(self) -> list[tuple[str, tuple[int, ...]]]:
        """For each row its label and the notes on it."""
        return [(row.label, tuple(self.table.marks(place, None))) for place, row in enumerate(self.table.rows)]

    @property
    def agreements(self) -> list[str]:
        """Where a column, or the only row, compares defenses: whether our order is the paper's."""
        heads = [" · ".join(column.heads) for column in self.table.columns]
        columns = zip(heads, zip(*self.rows, strict=True), strict=True)
        groups = [(head, [row.label for row in self.table.rows], values) for head, values in columns]
        if len(self.rows) == 1:
            groups = [(self.table.rows[0].label, heads, self.rows[0])]
        sentences = (
            agreement(what, comparable(labels, [one.printed for one in values], [one.measurement for one in values]))
            for what, labels, values in groups
        )
        return [one for one in sentences if one]


def compare_tables(reported: Reported, measurements: Measurements) -> list[ComparedTable]:
    """All tables with the measurements for their values."""
    return [_compared(table, reported, measurements) for table in reported.tables]


def _compared(table: ReportedTable, reported: Reported, measurements: Measurements) -> ComparedTable:
    rows = [
        [measurements.find(table.query(row, column), reported.settings) for column in range(len(table.columns))]
        for row in range(len(table.rows))
    ]
    cells = [measurement for row in rows for measurement in row]
    origins = list(dict.fromkeys(one.origin for one in cells if one.origin))
    reasons = list(dict.fromkeys(one.unmeasured for one in cells if one.unmeasured))
    runs, numbers = _runs(one.wanted for one in cells if one.wanted and not one.number)

    def value(row: int, column: int) -> ComparedValue:
        measurement = rows[row][column]
        return ComparedValue(
            printed=table.rows[row].values[column],
            notes=tuple(table.marks(row, column)),
            measurement=measurement,
            letter=_letter(origins.index(measurement.origin)) if measurement.origin else "",
            run=numbers[measurement.wanted] if measurement.wanted and not measurement.number else 0,
            reason=1 + reasons.index(measurement.unmeasured) if measurement.unmeasured else 0,
        )

    return ComparedTable(
        table=table,
        paper=reported.papers[table.paper],
        rows=tuple(tuple(value(row, column) for column in range(len(table.columns))) for row in range(len(rows))),
        origins={_letter(place): origin for place, origin in enumerate(origins)},
        runs=tuple(runs),
        reasons=tuple(reasons),
    )


def _runs(cells: Iterable[Cell]) -> tuple[list[str], dict[Cell, int]]:
    """As few commands as compute exactly these cells, and the number of the command for each cell."""
    wanted: dict[tuple[Cell, str], list[Cell]] = {}
    for cell in dict.fromkeys(cells):
        wanted.setdefault((replace(cell, attack="", defense=""), cell.defense), []).append(cell)
    merged: dict[tuple[Cell, tuple[str, ...]], list[list[Cell]]] = {}
    for (rest, _), group in wanted.items():
        merged.setdefault((rest, tuple(one.attack for one in group)), []).append(group)
    runs: list[str] = []
    numbers: dict[Cell, int] = {}
    for (rest, attacks), groups in merged.items():
        defenses = [group[0].defense for group in groups]
        runs.append(command(replace(rest, attack=",".join(attacks), defense=",".join(defenses))))
        numbers |= {cell: len(runs) for group in groups for cell in group}
    return runs, numbers


def _letter(place: int) -> str:
    """The letter of a place: a to z, then aa, ab and so on."""
    high, low = divmod(place, 26)
    return (_letter(high - 1) if high else "") + ascii_lowercase[low]
