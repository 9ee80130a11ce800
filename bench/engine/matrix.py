"""The matrix at work: computes the tasks of a plan, and saves each record at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.core.files import write_bytes
from bench.engine.plan import Plan
from bench.engine.task import BROKEN, Done
from bench.engine.workers import OnProgress, execute
from bench.records.schema import Outcome
from bench.records.store import Store


def compute(
    plan: Plan, store: Store, plugins: list[Path], workers: int, timeout: float | None, on_progress: OnProgress
) -> Iterator[Done]:
    """Computes the tasks of a plan and yields each when its record is saved; ends at a broken certificate.

    Args:
        plan: what to do.
        store: for the records.
        plugins, workers, timeout, on_progress: as for `execute`.
    """
    for done in execute(plan.tasks, plugins, workers, timeout, on_progress):
        store.save(done.record)
        if done.picture and isinstance(done.record, Outcome):
            write_bytes(store.picture(done.record.cell), done.picture)
        for former in plan.replaced.get(done.task, []):
            store.drop(former)
        yield done
        if done.record.reason.startswith(BROKEN):
            return
