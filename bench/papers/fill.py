"""A paper's table with our numbers in it: every value with what stands beside it, and the lists that it points to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from string import ascii_lowercase

from bench.papers.measure import Beside, Measured, Source
from bench.papers.rank_agreement import agreement, points
from bench.papers.reported import Paper, Place, Reported, Table
from bench.records.command import command
from bench.records.schema import Cell


@dataclass(frozen=True)
class Value:
    """One value of a paper.

    Attributes:
        printed: as in the paper, "" where it has nothing.
        notes: numbers of the notes on it.
        beside: our number, or why there is none.
        letter: of its source, "" without one.
        run: number of the command that would measure it, 0 if it is measured or cannot be.
        reason: number of the reason why nothing can be measured, 0 without one.
    """

    printed: str
    notes: tuple[int, ...]
    beside: Beside
    letter: str = ""
    run: int = 0
    reason: int = 0


@dataclass(frozen=True)
class Filled:
    """One table, ready to be laid out.

    Attributes:
        table, paper: what is reported.
        rows: the values, a tuple for each row of the table.
        sources: by their letters.
        runs, reasons: numbered from 1.
    """

    table: Table
    paper: Paper
    rows: tuple[tuple[Value, ...], ...]
    sources: Mapping[str, Source]
    runs: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def heads(self) -> list[list[tuple[str, int, tuple[int, ...]]]]:
        """For each level of the headings (text, width in columns, notes); equal neighbours are one heading."""
        depth = max(len(column.heads) for column in self.table.columns)
        levels = []
        for level in range(depth):
            numbered = enumerate(column.heads[: level + 1] for column in self.table.columns)
            groups = (
                [list(group) for _, group in groupby(numbered, key=lambda one: one[1])]
                if level < depth - 1
                else [[one] for one in numbered]
            )
            levels.append([self._head(group, level == depth - 1) for group in groups])
        return levels

    def _head(self, group: Sequence[tuple[int, tuple[str, ...]]], lowest: bool) -> tuple[str, int, tuple[int, ...]]:
        first, heads = group[0]
        return heads[-1], len(group), tuple(self.table.marks(None, first)) if lowest else ()

    @property
    def labels(self) -> list[tuple[str, tuple[int, ...]]]:
        """For each row its label and the notes on it."""
        return [(row.label, tuple(self.table.marks(place, None))) for place, row in enumerate(self.table.rows)]

    @property
    def measured(self) -> int:
        """How many values have a number of ours beside them."""
        return sum(value.beside.shown is not None for row in self.rows for value in row)

    @property
    def orders(self) -> list[str]:
        """Where a column, or the only row, compares defenses: whether our order is the paper's."""
        heads = [" · ".join(column.heads) for column in self.table.columns]
        lines = zip(heads, zip(*self.rows, strict=True), strict=True)
        groups = [(head, [row.label for row in self.table.rows], values) for head, values in lines]
        if len(self.rows) == 1:
            groups = [(self.table.rows[0].label, heads, self.rows[0])]
        told = (
            agreement(what, points(labels, [one.printed for one in values], [one.beside for one in values]))
            for what, labels, values in groups
        )
        return [one for one in told if one]


def fill(reported: Reported, measured: Measured) -> list[Filled]:
    """All tables with what the records have beside them."""
    return [_filled(table, reported, measured) for table in reported.tables]


def _filled(table: Table, reported: Reported, measured: Measured) -> Filled:
    rows = [
        [_value(table, row, column, reported.places, measured) for column in range(len(table.columns))]
        for row in range(len(table.rows))
    ]
    every = [value.beside for row in rows for value in row]
    sources = list(dict.fromkeys(one.source for one in every if one.source))
    letters = {source: _letter(place) for place, source in enumerate(sources)}
    reasons = list(dict.fromkeys(one.why_not for one in every if one.why_not))
    runs, numbers = _runs(one.cell for one in every if one.cell and not one.shown)

    def pointed(value: Value) -> Value:
        beside = value.beside
        if beside.source:
            return replace(value, letter=letters[beside.source])
        if beside.why_not:
            return replace(value, reason=1 + reasons.index(beside.why_not))
        return replace(value, run=numbers[beside.cell]) if beside.cell else value

    return Filled(
        table=table,
        paper=reported.papers[table.paper],
        rows=tuple(tuple(map(pointed, row)) for row in rows),
        sources={letter: source for source, letter in letters.items()},
        runs=tuple(runs),
        reasons=tuple(reasons),
    )


def _value(table: Table, row: int, column: int, places: Mapping[str, Place], measured: Measured) -> Value:
    beside = measured.beside(table.query(row, column), places)
    return Value(table.rows[row].values[column], tuple(table.marks(row, column)), beside)


def _runs(cells: Iterable[Cell]) -> tuple[list[str], dict[Cell, int]]:
    """As few commands as compute exactly these cells, and the number of the one that computes each."""
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
