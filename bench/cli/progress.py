"""What a run shows on the terminal: progress with the time left, failures at once, the table at the end."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from bench.cli.forecast import announce, duration, print_dry_run
from bench.cli.run_log import RunLog
from bench.core.tensor_cache import begin_job
from bench.engine.engines import Engine, Local
from bench.engine.estimate import Forecast, Shared
from bench.engine.matrix import compute
from bench.engine.plan import Plan, Task
from bench.engine.task import BROKEN
from bench.engine.workers import OnProgress
from bench.records.schema import Latency, Outcome
from bench.records.store import Store
from bench.report import print_boards, write_report

_PAUSE = 30.0
"""Seconds between two lines of progress where there is no terminal."""
WIDE = 120
"""Width in characters of a table that goes into a file or a pipe."""


def run_plan(
    plan: Plan,
    store: Store,
    plugins: list[Path],
    engine: Engine,
    timeout: float | None,
    time_limit: float | None = None,
    verbose: bool = False,
) -> int:
    """Computes what is missing of a plan, saves each record at once, and prints the table of all cells.

    Args:
        plan: what to compute, and what is done.
        store: for the records.
        plugins: files with third-party plugins.
        engine: where to compute it.
        timeout: seconds allowed for one cell, or None.
        time_limit: seconds for everything; no cell is begun that would not end in time. Only on this machine.
        verbose: whether to write a log below the results folder.

    Returns:
        The exit code: 0, or 1 where a cell failed, was left out for lack of time, or the run was interrupted.
    """
    begin_job()
    end = time.monotonic() + (time_limit or math.inf)
    log = RunLog(store.folder / "logs" if verbose else None)
    log.begin(plan)
    console, notes = _consoles(plan)
    outcomes, latencies, failed, left = list(plan.done), list(plan.latencies), 0, len(plan.tasks)
    shared: Mapping[Task, Mapping[Shared, float]] = {}
    made, broken = set[Shared](), False
    if plan.done:
        notes.print(f"{len(plan.done)} of {len(plan.cells)} cells were computed before.", style="dim")
    if plan.tasks and isinstance(engine, Local):
        forecast = announce(plan, store, engine, notes)
        if time_limit:
            shared, engine = forecast.shared, replace(engine, may_begin=partial(_fits, forecast, made, end))
    try:
        with _progress(plan, notes) as show:

            def on_progress(task: Task, share: float, doing: str) -> None:
                log.progress(task, share, doing)
                show(task, share, doing)

            for done in compute(plan, store, plugins, engine, timeout, on_progress):
                on_progress(done.task, 1, "done")
                log.end(done.task, done.record)
                left -= 1
                broken = done.record.reason.startswith(BROKEN)
                if done.record.status == "ok":
                    made |= shared.get(done.task, {}).keys()
                if isinstance(done.record, Outcome):
                    outcomes.append(done.record)
                elif done.record.status == "ok":
                    latencies.append(done.record)
                failed += _print_record(done.task, done.record, notes)
    except KeyboardInterrupt:
        notes.print(
            f"Interrupted with {len(outcomes)} of {len(plan.cells)} cells done. The same command resumes there."
        )
        return 1
    write_report(store.folder)
    print_boards(outcomes, latencies, console)
    if left:
        why = "a certificate is broken" if broken else "there was not enough time left"
        notes.print(f"{left} tasks were not started: {why}. The same command resumes there.")
    if log.path:
        notes.print(f"log: {log.path}", style="dim", markup=False)
    return 1 if failed or left else 0


def _fits(forecast: Forecast, made: Container[Shared], end: float, task: Task) -> bool:
    """Whether a task will end in time, with what tasks before it have made."""
    return time.monotonic() + forecast.needed(task, made) <= end


def print_forecast(plan: Plan, store: Store, engine: Engine) -> None:
    """Prints what a run of this plan would do; the times are those of processes of this machine."""
    console, _ = _consoles(plan)
    print_dry_run(plan, store, engine if isinstance(engine, Local) else Local(), console)


def _consoles(plan: Plan) -> tuple[Console, Console]:
    """For tables and for remarks, those of a plan already printed."""
    console, notes = Console(), Console(stderr=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=WIDE)
    for line in chain(*plan.remarks):
        notes.print(line, style="yellow", markup=False)
    return console, notes


def _print_record(task: Task, record: Outcome | Latency, notes: Console) -> int:
    """Prints warnings and failures of a finished task; returns 1 for a failure."""
    if record.status == "ok":
        for warning in record.warnings if isinstance(record, Outcome) else ():
            notes.print(f"{task}: {warning}", style="yellow", markup=False)
        return 0
    notes.print(f"{task}: {record.status}: {record.reason}", style="red", markup=False)
    return int(record.status != "not-applicable")


@contextmanager
def _progress(plan: Plan, notes: Console) -> Iterator[OnProgress]:
    """A bar over all tasks, in which a half-finished task counts half."""
    if not plan.tasks:
        yield lambda task, share, doing: None
        return
    if not notes.is_terminal:
        yield progress_lines(len(plan.tasks), notes)
        return
    with progress_bar(notes) as bar:
        whole = bar.add_task("", total=len(plan.tasks))
        shares: dict[Task, float] = {}

        def on_progress(task: Task, share: float, doing: str) -> None:
            shares[task] = max(share, 0.01)
            bar.update(whole, completed=sum(shares.values()), description=f"{task}: {doing}")

        yield on_progress


def progress_lines(
    tasks: int, notes: Console, pause: float = _PAUSE, clock: Callable[[], float] = time.monotonic
) -> OnProgress:
    """Prints a line now and then, where there is no terminal for a bar.

    Args:
        tasks: how many there are.
        notes: where to print.
        pause: seconds between two lines.
        clock: the time in seconds.
    """
    shares: dict[Task, float] = {}
    start = last = clock()

    def on_progress(task: Task, share: float, doing: str) -> None:
        nonlocal last
        shares[task] = share
        now, done = clock(), sum(shares.values())
        if now - last < pause:
            return
        last = now
        finished = sum(one >= 1 for one in shares.values())
        left = f", about {duration((now - start) * (tasks / done - 1))} left" if done else ""
        line = f"{finished} of {tasks} done ({100 * done / tasks:.0f} %), {duration(now - start)} so far{left}"
        notes.print(f"{line}; {task}: {doing}", markup=False, highlight=False, soft_wrap=True)

    return on_progress


def progress_bar(notes: Console) -> Progress:
    """A bar with percent, time so far, time left and a description; it vanishes at the end."""
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        TextColumn("{task.description}", markup=False),
    )
    return Progress(*columns, console=notes, transient=True)
