"""The matrix at work: computes the tasks of a plan, and saves each record at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.engine.engines import Engine
from bench.engine.plan import Plan
from bench.engine.task import BROKEN, Done
from bench.engine.workers import OnProgress
from bench.records.store import Store


def compute(
    plan: Plan, store: Store, plugins: list[Path], engine: Engine, timeout: float | None, on_progress: OnProgress
) -> Iterator[Done]:
    """Computes the tasks of a plan and yields each when its record is saved; ends at a broken certificate.

    Args:
        plan: what to do; other runs on the same results folder share the work.
        engine: where to do it.
        store, plugins, timeout, on_progress: as for `Engine.run`.
    """
    for done in engine.run(plan.tasks, store, plugins, timeout, on_progress):
        yield done
        if done.record.reason.startswith(BROKEN):
            return
