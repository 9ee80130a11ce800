"""Records as a pandas frame, with what the boards say about their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.records.frame import records_frame
from bench.records.schema import Cell, Latency, Outcome
from bench.records.store import Store
from bench.report.board import WORST_CASE, Board, Entry, Row
from bench.report.boards import make_boards

if TYPE_CHECKING:
    import pandas


def load_results(folder: Path | str = "results") -> pandas.DataFrame:
    """All records below a results folder as a tidy frame: one row per cell, measures as shares from 0 to 1.

    To the columns of `records_frame` it adds what the board of a cell says about its defense: `worst_case` with
    `worst_case_low` and `worst_case_high`, over those of the tier's attacks that have a number; `rank` ("" without
    one); and `flags`, the ids of the checks that fired. Raises InputError if a file is not a record.
    """
    store = Store(Path(folder))
    return results_frame(list(store.outcomes()), list(store.latencies()))


def results_frame(outcomes: Sequence[Outcome], latencies: Sequence[Latency] = ()) -> pandas.DataFrame:
    """As `load_results`, for records in memory."""
    return records_frame(outcomes, latencies, _by_cell(make_boards(outcomes, latencies)[0]))


def _by_cell(boards: Iterable[Board]) -> dict[Cell, Mapping[str, Any]]:
    said: dict[Cell, Mapping[str, Any]] = {}
    for board in boards:
        rows = {row.defense.key: row for row in board.rows}
        for (defense, _, tier), entry in board.entries.items():
            worst = board.entries.get((defense, WORST_CASE, tier), Entry({}))
            columns = _columns(rows[defense], worst)
            said |= {outcome.cell: columns for outcome in (entry.sample.outcomes if entry.sample else ())}
    return said


def _columns(row: Row, worst: Entry) -> dict[str, Any]:
    number = worst.numbers.get("attacked_accuracy")
    ends = (number.value, number.low, number.high) if number else (None, None, None)
    shares = [None if one is None else one / 100 for one in ends]
    return {
        **dict(zip(("worst_case", "worst_case_low", "worst_case_high"), shares, strict=True)),
        "rank": row.rank.strip("–"),
        "flags": " ".join(flag.id for flag in row.raised),
    }
