"""What `bench.evaluate` returns: records, numbers, a table and the attacked images."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from rich.console import Console

from bench.contracts import Images
from bench.records.schema import Cell, Latency, Outcome
from bench.report import print_boards
from bench.report.frame import results_frame

if TYPE_CHECKING:
    import pandas

WIDTH = 120
"""Of the table, in characters."""
_PAGE = '<pre style="line-height:1.2;white-space:pre;overflow-x:auto">{code}</pre>'


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """The cells of an evaluation.

    Attributes:
        cells: the record of each: what happened to every image, provenance, warnings. A cell that failed has a status
            other than `ok`, and a reason.
        adversarial: the attacked images of each cell that was computed in this call, shape (n, c, h, w), by its `cell`.
        latencies: how long each defense takes, if that was asked for.
        notes: what was left out and why, and what makes the numbers doubtful.
    """

    cells: tuple[Outcome, ...]
    adversarial: dict[Cell, Images]
    latencies: tuple[Latency, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The boards as on a terminal."""
        return self._printed(lambda console: console.export_text(styles=False))

    @cached_property
    def frame(self) -> pandas.DataFrame:
        """A row for each cell, as `bench.load_results` has it."""
        return results_frame(self.cells, self.latencies)

    def __repr__(self) -> str:
        return "\n".join([*self.notes, self.table])

    def _repr_html_(self) -> str:
        return self._printed(lambda console: console.export_html(inline_styles=True, code_format=_PAGE))

    def _printed(self, export: Callable[[Console], str]) -> str:
        console = Console(record=True, file=io.StringIO(), width=WIDTH, force_terminal=False, force_jupyter=False)
        print_boards(self.cells, self.latencies, console)
        return export(console)
