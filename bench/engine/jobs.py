"""Engines whose workers are jobs on other machines, which see the same files and have the same Python environment.

A job computes some of the tasks as a run of its own: it claims them, has its own worker processes with their time
limit, and writes their records itself. This side only submits jobs and looks for records, so it may die and be started
again.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from bench.core.tensor_cache import cache_folder
from bench.engine.engines import devices_of
from bench.engine.plan import Task
from bench.engine.queue import PAUSE, TaskQueue, claim_of, save_done, written_elsewhere
from bench.engine.task import BROKEN, Done, failure
from bench.engine.workers import OnProgress, execute, load_plugins
from bench.errors import InputError
from bench.records.schema import Status
from bench.records.store import Store

TRIES = 2
"""Jobs that a task may kill before it counts as failed; in the second it is alone."""

_LAST_MOMENT = 30.0
"""Seconds that jobs get to end by themselves once all records are there."""

_PATIENCE = 180.0
"""Seconds until the records of a job that has ended are there; a network file system may show them late."""


@dataclass(frozen=True)
class Job:
    """What one job computes.

    Attributes:
        tasks: one after the other, for each worker.
        workers: processes; one for each GPU that the job sees, at least.
        results, cache, folder: the folders of the records, of the cache, and the one where the command was started.
        plugins, timeout: as for `execute`.
    """

    tasks: tuple[Task, ...]
    workers: int
    results: Path
    cache: Path
    folder: Path
    plugins: tuple[Path, ...]
    timeout: float | None

    def __call__(self) -> None:
        """Computes those tasks that no other run has claimed, and writes their records."""
        os.chdir(self.folder)
        os.environ["BENCH_CACHE"] = str(self.cache)
        load_plugins([*self.plugins])
        devices = devices_of(self.tasks[0].setting.device)
        queue = TaskQueue(self.tasks, Store(self.results), wait=False)
        for done in execute(queue, [*self.plugins], self.workers, self.timeout, _no_progress, devices):
            if done.record.reason.startswith(BROKEN):
                return

    def checkpoint(self) -> Any:
        """What submitit submits again when the job is preempted: the same, which goes on where it was."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def _no_progress(task: Task, share: float, doing: str) -> None:
    pass


@dataclass(frozen=True)
class Ending:
    """How a job came to an end.

    Attributes:
        how: `done`; `lost` with its machine; `killed`, perhaps by what it computed; `cancelled` by somebody; or
            `failed`, before it computed anything.
        reason: in the words of the cluster.
        status: of the task that killed it.
    """

    how: Literal["done", "lost", "killed", "cancelled", "failed"]
    reason: str = ""
    status: Status = "error"


@dataclass(frozen=True)
class JobEngine(ABC):
    """Submits jobs, and looks for the records that they write.

    Attributes:
        workers: processes in a job; one for each of its GPUs, at least.
        cells_per_job: how many cells, at most, a job computes; they share an attack.
    """

    workers: int = 1
    cells_per_job: int = 20

    @abstractmethod
    def submit(self, jobs: Sequence[Job], store: Store) -> list[Any]:
        """Submits jobs; returns what `ending` and `cancel` are called with."""

    @abstractmethod
    def ending(self, handle: Any) -> Ending | None:
        """How a job has ended; None while it waits or runs."""

    @abstractmethod
    def cancel(self, handle: Any) -> None:
        """Ends a job."""

    def run(
        self, tasks: list[Task], store: Store, plugins: list[Path], timeout: float | None, on_progress: OnProgress
    ) -> Iterator[Done]:
        """As `Engine.run`."""
        template = Job(
            tasks=(),
            workers=self.workers,
            results=store.folder.absolute(),
            cache=cache_folder().absolute(),
            folder=Path.cwd(),
            plugins=tuple(path.absolute() for path in plugins),
            timeout=timeout,
        )
        return _Watch(self, store, template, tasks, on_progress).results()


@dataclass
class _Watch:
    """The jobs of one run."""

    engine: JobEngine
    store: Store
    template: Job
    tasks: list[Task]
    on_progress: OnProgress
    running: list[tuple[Any, Job]] = field(default_factory=list)
    killings: Counter[Task] = field(default_factory=Counter)
    awaited: dict[Task, float] = field(default_factory=dict)

    def results(self) -> Iterator[Done]:
        """Each task with its record, as soon as it is there."""
        missing = dict.fromkeys(self.tasks)
        try:
            while missing:
                self._submit_those_without_a_job(missing)
                self.on_progress(next(iter(missing)), 0, f"{len(self.running)} jobs")
                time.sleep(PAUSE)
                ended = self._ended_jobs()
                for task in [*missing]:
                    if done := written_elsewhere(task, self.store):
                        del missing[task]
                        yield done
                for job, ending in ended:
                    for done in self._failures(job, ending, missing):
                        del missing[done.task]
                        yield done
            self._let_end()
        finally:
            for handle, _ in self.running:
                self.engine.cancel(handle)

    def _let_end(self) -> None:
        """Gives jobs whose records are all there a moment to end; those that still wait for a machine are cancelled."""
        started = time.monotonic()
        while self.running and time.monotonic() - started < _LAST_MOMENT:
            self._ended_jobs()
            time.sleep(0.1)

    def _submit_those_without_a_job(self, missing: dict[Task, None]) -> None:
        """Submits jobs for the tasks that are in none and that no other run computes."""
        covered = {task for _, job in self.running for task in job.tasks}
        free = [task for task in missing if task not in covered and self._is_free(task)]
        jobs = [replace(self.template, tasks=tuple(tasks)) for tasks in self._shares(free)]
        if jobs:
            self.running += zip(self.engine.submit(jobs, self.store), jobs, strict=True)

    def _is_free(self, task: Task) -> bool:
        claim = claim_of(task, self.store)
        free = claim.acquire(wait=False)
        claim.release()
        return free

    def _shares(self, tasks: Sequence[Task]) -> Iterator[list[Task]]:
        """The tasks of each job: of one column each; what may have killed a job is alone."""
        columns: dict[str, list[Task]] = {}
        for task in tasks:
            alone = str(task.place) if self.killings[task] else ""
            columns.setdefault(f"{task.column} {alone}", []).append(task)
        size = self.engine.cells_per_job
        for column in columns.values():
            yield from (column[start : start + size] for start in range(0, len(column), size))

    def _ended_jobs(self) -> list[tuple[Job, Ending]]:
        """The jobs that have ended since the last time; asked before the records are read."""
        endings = [(handle, job, self.engine.ending(handle)) for handle, job in self.running]
        self.running = [(handle, job) for handle, job, ending in endings if ending is None]
        return [(job, ending) for _, job, ending in endings if ending is not None]

    def _failures(self, job: Job, ending: Ending, missing: dict[Task, None]) -> Iterator[Done]:
        """Of a job that has ended: the tasks that will not be tried again, each with a record that says why."""
        left = [task for task in job.tasks if task in missing]
        if ending.how == "failed":
            raise InputError(f"A job failed before it computed anything: {ending.reason}")
        if ending.how == "done":
            self._check_records(left)
        suspects = left if ending.how == "cancelled" else left[: self.template.workers]
        if ending.how in ("killed", "cancelled"):
            self.killings.update(suspects)
            for task in suspects:
                if ending.how == "cancelled" or (self.killings[task] >= TRIES and len(job.tasks) == 1):
                    done = failure(task, ending.status, ending.reason)
                    save_done(done, self.store)
                    yield done

    def _check_records(self, left: Sequence[Task]) -> None:
        """Raises InputError if jobs that ended wrote no record of these tasks here, or one of other inputs."""
        for task in left:
            if not self._is_free(task) or written_elsewhere(task, self.store):
                continue  # another run computes it, or has just done so
            awaited = time.monotonic() - self.awaited.setdefault(task, time.monotonic())
            if awaited > _PATIENCE:
                raise InputError(
                    f"Jobs that ended without an error left no record of {task} in {self.template.results}. Does their "
                    f"machine see the same folder?"
                )
            if self.store.version(task.place) != task.before and not written_elsewhere(task, self.store):
                raise InputError(
                    f"A job computed {task} from other inputs than those here. Do its machine and this one see the "
                    f"same data, weights and plugins, and the same version of defense-bench?"
                )
