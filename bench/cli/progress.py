"""What a run shows on the terminal: progress with the time left, failures as they come, the table at the end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.engine.matrix import compute
from bench.engine.plan import Plan, Task
from bench.engine.workers import Told
from bench.records.schema import Latency, Outcome
from bench.records.store import Store
from bench.report import print_boards, write_report

WIDE = 120
"""Columns of a table that goes into a file or a pipe."""


def run(plan: Plan, store: Store, plugins: list[Path], workers: int, timeout: float | None) -> int:
    """Computes what a plan leaves to do, saves each record as it comes, and prints the table of all its cells.

    Args:
        plan: what to do, and what is done.
        store: where records go.
        plugins: files with third-party plugins.
        workers: processes; 0 for none.
        timeout: seconds for one cell, or None.

    Returns:
        The exit code: 0, or 1 where a cell failed or the run was interrupted.
    """
    console, notes = Console(), Console(stderr=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=WIDE)
    for line in plan.left_out + plan.stale:
        notes.print(line, style="yellow", markup=False)
    outcomes, latencies, failed = list(plan.done), list(plan.latencies), 0
    if plan.done:
        notes.print(f"{len(plan.done)} of {_cells(plan)} cells were there already.", style="dim")
    try:
        with _progress(plan, notes) as told:
            for done in compute(plan, store, plugins, workers, timeout, told):
                told(done.task, 1, "done")
                if isinstance(done.record, Latency):
                    latencies.append(done.record)
                    continue
                if not done.task.latency:
                    outcomes.append(done.record)
                failed += _tell(done.task, done.record, notes)
    except KeyboardInterrupt:
        notes.print(f"Interrupted with {len(outcomes)} of {_cells(plan)} cells done. The same command goes on there.")
        return 1
    write_report(store.folder)
    print_boards(outcomes, latencies, console)
    return 1 if failed else 0


def _cells(plan: Plan) -> int:
    return len(plan.done) + sum(not task.latency for task in plan.tasks)


def _tell(task: Task, record: Outcome, notes: Console) -> int:
    """Prints what a reader must know of a finished cell at once; returns 1 for a failure."""
    if record.status == "ok":
        for warning in record.warnings:
            notes.print(f"{task}: {warning}", style="yellow", markup=False)
        return 0
    notes.print(f"{task}: {record.status}: {record.reason}", style="red", markup=False)
    return int(record.status != "not-applicable")


@contextmanager
def _progress(plan: Plan, notes: Console) -> Iterator[Told]:
    """A bar over all tasks whose length counts the shares of unfinished ones, too."""
    if not plan.tasks:
        yield lambda task, share, doing: None
        return
    with progress_bar(notes) as bar:
        whole = bar.add_task("", total=len(plan.tasks))
        shares: dict[Task, float] = {}

        def told(task: Task, share: float, doing: str) -> None:
            shares[task] = max(share, 0.01)
            bar.update(whole, completed=sum(shares.values()), description=f"{task}: {doing}")

        yield told


def progress_bar(notes: Console) -> Progress:
    """A bar with percent, time so far, time left and a description, which vanishes in the end."""
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.description}", markup=False),
    )
    return Progress(*columns, console=notes, transient=True)
