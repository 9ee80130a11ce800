"""The tasks of a run, in an order in which any number of runs on one results folder share the work.

The run that computes a task holds its claim, a lock below the results folder. A run leaves out what others have
claimed, comes back to it at the end, and takes the record that another run has written meanwhile.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path

from bench.core.files import write_bytes
from bench.core.locks import ProcessLock
from bench.engine.plan import CellTask, LatencyTask, Task
from bench.engine.task import Done
from bench.records.schema import Latency, Outcome
from bench.records.store import Store

PAUSE = 0.5
"""Seconds between two looks at what other runs have claimed."""


class TaskQueue:
    """Tasks for workers, and the records that they made.

    A worker stays in a column, whose cells share the images of an attack, and prefers one in which nobody is at work,
    so that no two craft the same images. A timing runs while no other worker of this run is at work.
    """

    def __init__(
        self,
        tasks: Iterable[Task],
        store: Store | None = None,
        wait: bool = True,
        may_begin: Callable[[Task], bool] = lambda task: True,
    ) -> None:
        """All the tasks of a run.

        Args:
            tasks: what to compute; the order within a column and that of the columns is kept.
            store: where records and claims are; without one nothing is saved or claimed.
            wait: whether to wait for what other runs have claimed, or to leave it to them.
            may_begin: whether there is time for a task; one for which there is none is left out.
        """
        self.waits = wait
        self._may_begin = may_begin
        self._store = store
        self._left: dict[str, list[Task]] = {}
        for task in tasks:
            self._left.setdefault(task.column, []).append(task)
        self._claims: dict[Task, ProcessLock | None] = {}
        self._columns: dict[str, ProcessLock | None] = {}
        self._look_again = 0.0

    def __len__(self) -> int:
        """How many tasks nobody has been given yet."""
        return sum(map(len, self._left.values()))

    @property
    def left(self) -> list[Task]:
        """The tasks that nobody has been given yet."""
        return [*chain.from_iterable(self._left.values())]

    def next(self, last: Task | None, busy: Sequence[Task]) -> Task | Done | None:
        """The next task for a worker, or the record of one that another run has computed; None for the moment.

        Args:
            last: what this worker did last.
            busy: what the other workers are doing.
        """
        if any(isinstance(task, LatencyTask) for task in busy) or time.monotonic() < self._look_again:
            return None
        self._leave_out()
        columns = [name for name, tasks in self._left.items() if not (busy and isinstance(tasks[0], LatencyTask))]
        own = [last.column] if last and last.column in columns else []
        unoccupied = (name for name in columns if name not in self._columns and self._enter(name))
        for name in chain(own, unoccupied, columns):
            given = self._take(name)
            if given:
                return given
            self._leave(name)
        self._look_again = time.monotonic() + PAUSE if columns else 0.0
        return None

    def finish(self, done: Done) -> None:
        """Saves what a worker has made, and releases its task."""
        if self._store is not None:
            save_done(done, self._store)
        _release(self._claims.pop(done.task, None))
        if done.task.column not in self._left:
            self._leave(done.task.column)

    def close(self) -> None:
        """Releases everything."""
        for lock in [*self._claims.values(), *self._columns.values()]:
            _release(lock)
        self._claims, self._columns = {}, {}

    def _leave_out(self) -> None:
        """Leaves out the tasks for which there is no time left."""
        left = {column: [*filter(self._may_begin, tasks)] for column, tasks in self._left.items()}
        self._left = {column: tasks for column, tasks in left.items() if tasks}

    def _take(self, column: str) -> Task | Done | None:
        """The first task of a column that nobody else has claimed."""
        for task in self._left.get(column, ()):
            claim = claim_of(task, self._store) if self._store else None
            if claim and not claim.acquire(wait=False):
                continue
            self._left[column].remove(task)
            if not self._left[column]:
                del self._left[column]
            done = written_elsewhere(task, self._store) if self._store else None
            if done:
                _release(claim)
                return done
            self._claims[task] = claim
            return task
        return None

    def _enter(self, column: str) -> bool:
        """Whether no run is at work in a column; this one is from now on."""
        lock = ProcessLock(_lock_file(self._store, column)) if self._store else None
        if lock and not lock.acquire(wait=False):
            return False
        self._columns[column] = lock
        return True

    def _leave(self, column: str) -> None:
        """Lets other runs enter a column in which no worker of this one is."""
        if column in self._columns and all(task.column != column for task in self._claims):
            _release(self._columns.pop(column))


def claim_of(task: Task, store: Store) -> ProcessLock:
    """The lock that the process computing a task holds."""
    return ProcessLock(_lock_file(store, str(task.place)))


def _release(lock: ProcessLock | None) -> None:
    if lock:
        lock.release()


def _lock_file(store: Store, what: str) -> Path:
    return store.claims / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.lock"


def written_elsewhere(task: Task, store: Store) -> Done | None:
    """The record of a task that another run has written since this one was planned, made from the same inputs."""
    if store.version(task.place) == task.before:
        return None
    record: Outcome | Latency | None
    if isinstance(task, CellTask):
        record = store.load(task.cell)
    else:
        record = next((one for one in store.latencies() if store.path(one) == store.path(task.place)), None)
    if record is None or any(record.fingerprints.get(name) != value for name, value in task.inputs):
        return None
    return Done(task, record)


def save_done(done: Done, store: Store) -> None:
    """Saves a record and its picture, and deletes the records that it replaces."""
    store.save(done.record)
    if done.picture and isinstance(done.record, Outcome):
        write_bytes(store.picture(done.record.cell), done.picture)
    for former in done.task.replaces:
        store.drop(former)
