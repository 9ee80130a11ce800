"""The matrix at work: computes what a plan leaves to do, and saves each record as it comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.core.files import write_bytes
from bench.engine.plan import Plan
from bench.engine.workers import BROKEN, Done, Told, execute
from bench.records.schema import Latency
from bench.records.store import Store


def compute(
    plan: Plan, store: Store, plugins: list[Path], workers: int, timeout: float | None, told: Told
) -> Iterator[Done]:
    """Computes the tasks of a plan and yields each when its record is saved; ends where a certificate was broken.

    Args:
        plan: what to do.
        store: where records go.
        plugins, workers, timeout, told: as for `execute`.
    """
    for done in execute(plan.tasks, plugins, workers, timeout, told):
        record = done.record
        if isinstance(record, Latency):
            store.save(record)
        elif not done.task.latency:
            store.save(record)
            if done.picture:
                write_bytes(store.picture(record.cell), done.picture)
        yield done
        if not isinstance(record, Latency) and record.reason.startswith(BROKEN):
            return
