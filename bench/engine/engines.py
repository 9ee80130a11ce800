"""Engines: where the tasks of a plan are computed. All of them leave one record for each task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import torch

from bench.engine.plan import Task
from bench.engine.queue import TaskQueue
from bench.engine.task import Done
from bench.engine.workers import OnProgress, execute
from bench.records.store import Store


@runtime_checkable
class Engine(Protocol):
    """A way to compute tasks."""

    def run(
        self, tasks: list[Task], store: Store, plugins: list[Path], timeout: float | None, on_progress: OnProgress
    ) -> Iterator[Done]:
        """Yields each task when its record is saved; other runs on the same store share the work.

        Args:
            tasks: what to compute.
            store: for the records.
            plugins: files with third-party plugins.
            timeout: seconds for one task, or None.
            on_progress: called now and then.
        """


@dataclass(frozen=True)
class Local:
    """Processes of this machine.

    Attributes:
        workers: how many; 0 computes in this one, for debugging.
        devices: where they compute, in turn, with one worker for each at least; by default where the tasks say.
        may_begin: as for `TaskQueue`.
    """

    workers: int = 1
    devices: tuple[str, ...] = ()
    may_begin: Callable[[Task], bool] = lambda task: True
    name: ClassVar[str] = "local"

    def run(
        self, tasks: list[Task], store: Store, plugins: list[Path], timeout: float | None, on_progress: OnProgress
    ) -> Iterator[Done]:
        """As `Engine.run`."""
        queue = TaskQueue(tasks, store, may_begin=self.may_begin)
        return execute(queue, plugins, self.workers, timeout, on_progress, self.devices)


def devices_of(text: str) -> tuple[str, ...]:
    """The devices of torch in a text with commas; `cuda` means every GPU that this process sees."""
    names = [name.strip() for name in text.split(",")]
    every = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return tuple(dict.fromkeys(device for name in names for device in (every if name == "cuda" and every else [name])))
