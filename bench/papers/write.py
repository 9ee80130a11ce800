"""The papers' tables with our numbers, as files: Markdown, CSV and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.core.files import write_text
from bench.core.text import csv_text
from bench.papers.comparison import ComparedTable, ComparedValue, compare_tables
from bench.papers.latex import latex_document, latex_table
from bench.papers.markdown import tables_markdown
from bench.papers.measure import Measurements
from bench.papers.reported import load_reported
from bench.records.command import command
from bench.records.schema import Cell, Latency, Outcome
from bench.records.store import Store

RedFlags = Callable[[Sequence[Outcome], Sequence[Latency]], Mapping[Cell, tuple[str, ...]]]
"""Records -> the first cell of each sample with the ids of the red flags of its row, as `bench.report.red_flags`."""
CSV_COLUMNS = (
    "paper", "table", "row", "column", "unit", "reported", "measured", "low", "high", "n", "status", "dataset", "model",
    "attack", "defense", "tier", "goal", "effort", "flags", "differs", "remarks", "command", "why_not",
)  # fmt: skip


def generate_tables(results: Path, red_flags: RedFlags) -> dict[Path, str]:
    """All generated files as text; `reported/` and the records of a results folder determine every byte.

    Raises:
        InputError: the papers' tables are missing, or a file is invalid.
    """
    store, reported = Store(results), load_reported(results / "reported")
    outcomes, latencies = list(store.outcomes()), list(store.latencies())
    tables = compare_tables(reported, Measurements(outcomes, latencies, red_flags(outcomes, latencies)))
    folder = results / "tables"
    return {
        folder / "README.md": tables_markdown(tables),
        folder / "tables.csv": csv_text([CSV_COLUMNS, *(row for table in tables for row in _csv_rows(table))]),
        folder / "tables.tex": latex_document([one.table.name for one in tables]),
        **{folder / f"{one.table.name}.tex": latex_table(one) for one in tables},
    }


def write_tables(results: Path, red_flags: RedFlags) -> list[Path]:
    """Writes the generated files and returns their paths."""
    files = generate_tables(results, red_flags)
    for path, text in files.items():
        write_text(path, text)
    return list(files)


def stale_tables(results: Path, red_flags: RedFlags) -> list[Path]:
    """The generated files that are missing or not what the papers' values and the records give."""
    files = generate_tables(results, red_flags)
    return [path for path, text in files.items() if not path.is_file() or path.read_bytes() != text.encode()]


def _csv_rows(compared: ComparedTable) -> Iterator[list[str]]:
    table = compared.table
    for row, values in enumerate(compared.rows):
        for column, value in enumerate(values):
            place = [table.paper, table.table, table.rows[row].label, " / ".join(table.columns[column].heads)]
            marks = {*value.notes, *table.marks(row, None), *table.marks(None, column)}
            remarks = " ".join(table.notes[one - 1].text for one in sorted(marks))
            unit = table.query(row, column).unit
            yield [*place, unit, value.printed, *_measured(value), remarks, *_missing(value)]


def _measured(value: ComparedValue) -> list[str]:
    """The columns from `measured` to `differs`."""
    measurement = value.measurement
    numbers = ["" if math.isnan(number) else f"{number:.6g}" for number in measurement.interval]
    status = measurement.number.text if measurement.number and measurement.number.value is None else ""
    names = ("dataset", "model", "attack", "defense", "tier", "goal", "effort")
    cell = [str(getattr(measurement.measured, name)) if measurement.measured else "" for name in names]
    differs = measurement.origin.sentence if measurement.origin else ""
    return [*numbers, str(measurement.n or ""), status, *cell, " ".join(measurement.flags), differs]


def _missing(value: ComparedValue) -> list[str]:
    """The columns `command` and `why_not`."""
    wanted = value.measurement.wanted if value.measurement.number is None else None
    return [command(wanted) if wanted else "", value.measurement.unmeasured]
