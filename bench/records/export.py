"""All records as one table for other programs: CSV, Parquet, JSON and Markdown."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bench.core.text import csv_text, escape_markdown, markdown_table
from bench.errors import InputError, MissingExtraError
from bench.plugins.specs import check_known

if TYPE_CHECKING:
    import pandas

READ = ("dataset", "model", "defense", "attack", "tier", "seed", "n", "clean_accuracy", "attacked_accuracy", "delta")
"""The columns of the formats that people read; the other formats have all columns."""


def export(frame: pandas.DataFrame, kind: str) -> bytes:
    """Records in another format.

    Args:
        frame: the records, as `bench.load_results` has them.
        kind: csv, parquet, markdown or json.

    Raises:
        InputError: there are no records, or no such format.
        MissingExtraError: parquet without pyarrow.
    """
    check_known(kind, FORMATS, "format")
    if kind == "parquet" and find_spec("pyarrow") is None:
        raise MissingExtraError("The format parquet", "parquet")
    if frame.empty:
        raise InputError("Expected records in the results folder, but there are none. 'bench run' makes them.")
    return FORMATS[kind](frame)


def _csv(frame: pandas.DataFrame) -> bytes:
    return csv_text([list(frame.columns), *frame.itertuples(index=False)]).encode()


def _json(frame: pandas.DataFrame) -> bytes:
    return (str(frame.to_json(orient="records", indent=1, force_ascii=False)) + "\n").encode()


def _parquet(frame: pandas.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False, engine="pyarrow")
    return buffer.getvalue()


def _markdown(frame: pandas.DataFrame) -> bytes:
    head, *rows = [[escape_markdown(cell) for cell in row] for row in [READ, *_cells(frame)]]
    return markdown_table(head, rows, "l" * len(head)).encode()


def _cells(frame: pandas.DataFrame) -> list[list[str]]:
    """The columns that people read, with shares in percent and their intervals."""
    return [[_cell(row, name) for name in READ] for row in frame.to_dict("records")]


def _cell(row: dict[Any, Any], name: str) -> str:
    value = row[name]
    if f"{name}_low" not in row:
        return str(value)
    if math.isnan(value):
        return "–" if row["status"] == "ok" else str(row["status"])
    return f"{100 * value:.1f} ({100 * row[f'{name}_low']:.1f} to {100 * row[f'{name}_high']:.1f})"


FORMATS: dict[str, Callable[[pandas.DataFrame], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "markdown": _markdown,
    "json": _json,
}
