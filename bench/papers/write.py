"""The papers' tables with our numbers in them, as files: Markdown, a page, CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from bench.core.files import write_text
from bench.core.text import csv_text
from bench.papers import latex, reported
from bench.papers import markdown as papers
from bench.papers.fill import Filled, Value, fill
from bench.papers.measure import Measured
from bench.records.command import command
from bench.records.store import Store

FIELDS = (
    "paper", "table", "row", "column", "unit", "reported", "measured", "low", "high", "n", "status", "dataset", "model",
    "attack", "defense", "tier", "goal", "effort", "flags", "differs", "remarks", "command", "why_not",
)  # fmt: skip
"""Columns of the CSV file: a line for each value of a paper."""


def generate_tables(results: Path) -> dict[Path, str]:
    """All generated files as text; a function of `reported/` and the records of a results folder, byte for byte.

    Raises InputError where the papers' tables are not there, or a file is not as it should be.
    """
    store = Store(results)
    tables = fill(reported.load(results / "reported"), Measured(store.outcomes(), store.latencies()))
    folder = results / "tables"
    return {
        folder / "README.md": papers.markdown(tables),
        folder / "index.html": papers.page(tables),
        folder / "tables.csv": csv_text([FIELDS, *(line for one in tables for line in _lines(one))]),
        folder / "tables.tex": latex.document([one.table.name for one in tables]),
        **{folder / f"{one.table.name}.tex": latex.table(one) for one in tables},
    }


def write_tables(results: Path) -> list[Path]:
    """Writes the generated files, each whole or not at all, and returns their paths."""
    files = generate_tables(results)
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def stale_tables(results: Path) -> list[Path]:
    """The generated files that are missing or not what the papers' values and the records give."""
    files = generate_tables(results)
    return [path for path, text in files.items() if not path.is_file() or path.read_bytes() != text.encode()]


def _lines(filled: Filled) -> Iterator[list[str]]:
    table = filled.table
    for row, values in enumerate(filled.rows):
        for column, value in enumerate(values):
            place = [table.paper, table.table, table.rows[row].label, " / ".join(table.columns[column].heads)]
            marks = {*value.notes, *table.marks(row, None), *table.marks(None, column)}
            remarks = " ".join(table.notes[one - 1].text for one in sorted(marks))
            yield [*place, table.query(row, column).unit, value.printed, *_of_ours(value), remarks, *_of_missing(value)]


def _of_ours(value: Value) -> list[str]:
    """From `measured` to `differs`."""
    beside, found = value.beside, value.beside.found
    numbers = ["" if math.isnan(one) else f"{one:.6g}" for one in beside.numbers]
    status = "" if beside.shown is None or beside.shown.value is not None else beside.shown.text
    cell = ["dataset", "model", "attack", "defense", "tier", "goal", "effort"]
    told = [str(getattr(found, name)) if found else "" for name in cell]
    differs = beside.source.sentence if beside.source else ""
    return [*numbers, str(beside.n or ""), status, *told, " ".join(beside.flags), differs]


def _of_missing(value: Value) -> list[str]:
    """`command` and `why_not`."""
    beside = value.beside
    return [command(beside.cell) if beside.cell and beside.shown is None else "", beside.why_not]
