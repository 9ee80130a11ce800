"""What a run will do, before it does it: cells done, stale and to do, with their time and memory."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table

from bench.engine.engines import Local
from bench.engine.estimate import Forecast, estimate
from bench.engine.plan import CellTask, Plan, Task
from bench.records.store import Store

WORTH_SAYING = 60.0
"""A run that will take more seconds says so at its start."""


def print_dry_run(plan: Plan, store: Store, engine: Local, console: Console) -> None:
    """Prints what there is to do for each attack, and the total."""
    forecast = estimate(plan, store)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("attack", overflow="fold")
    for heading in ("done", "to do", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name in dict.fromkeys(cell.attack for cell in plan.cells):
        tasks = [task for task in plan.tasks if isinstance(task, CellTask) and task.cell.attack == name]
        done = sum(record.cell.attack == name for record in plan.done)
        table.add_row(name, str(done), str(len(tasks)), _time(forecast, tasks))
    timings = [task for task in plan.tasks if not isinstance(task, CellTask)]
    if timings:
        table.add_row("(latency)", str(len(plan.latencies)), str(len(timings)), _time(forecast, timings))
    console.print(table)
    console.print(summary(plan, forecast, crew(engine)), markup=False, highlight=False)


def announce(plan: Plan, store: Store, engine: Local, notes: Console) -> Forecast:
    """Says how long a long run will take, and returns what it will cost."""
    forecast = estimate(plan, store)
    if forecast.total(crew(engine)) > WORTH_SAYING:
        notes.print(summary(plan, forecast, crew(engine)), markup=False, highlight=False, style="dim")
    return forecast


def crew(engine: Local) -> int:
    """How many tasks it computes at once."""
    return max(1, engine.workers, len(engine.devices))


def summary(plan: Plan, forecast: Forecast, workers: int) -> str:
    """One line: how many cells, and what they take."""
    cells = sum(isinstance(task, CellTask) for task in plan.tasks)
    stale = f" ({len(plan.stale)} stale)" if plan.stale else ""
    text = f"{len(plan.cells)} cells: {len(plan.done)} done, {cells} to do{stale}."
    if not plan.tasks:
        return text
    about = "roughly" if forecast.rough else "about"
    text += f" Time: {about} {duration(forecast.total(workers))} with {workers} worker{'s' if workers > 1 else ''}"
    text += f" ({len(forecast.rough)} cells have no similar record: a guess)" if forecast.rough else ""
    return f"{text}; memory: about {forecast.mib:.0f} MiB a worker."


def _time(forecast: Forecast, tasks: Iterable[Task]) -> str:
    chosen = list(tasks)
    rough = any(task in forecast.rough for task in chosen)
    return ("? " if rough else "") + duration(sum(forecast.seconds[task] for task in chosen)) if chosen else "–"


def duration(seconds: float) -> str:
    """In words of at most two units: 7 s, 3 min, 2 h 5 min, 3 d 4 h."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
