"""Where cells run: in processes of their own, so that a crash, a hang or a lack of memory costs one cell only."""

from __future__ import annotations

import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path

from bench.engine.plan import Task
from bench.records.schema import Latency, Outcome, Status

Told = Callable[[Task, float, str], None]

BROKEN = "CERTIFICATE BROKEN"
"""How the reason of a record begins whose certificate an attack refuted."""


@dataclass(frozen=True)
class Done:
    """What came of a task: a record, and for universal attacks the picture of what was learned (PNG)."""

    task: Task
    record: Outcome | Latency
    picture: bytes | None = None


def execute(tasks: list[Task], plugins: list[Path], workers: int, timeout: float | None, told: Told) -> Iterator[Done]:
    """Computes the tasks and gives each as soon as it is done, in order for one worker.

    Args:
        tasks: what to compute.
        plugins: files with third-party plugins, to be loaded in each process.
        workers: how many processes; 0 computes in this one, for debugging.
        timeout: seconds for one task, or None.
        told: told of progress: the task, the share done, and what is being done.
    """
    if workers == 0:
        for task in tasks:
            yield _compute(task, lambda share, doing, task=task: told(task, share, doing))  # type: ignore[misc]
        return
    todo = list(reversed(tasks))
    crew = [_Worker(plugins, workers) for _ in range(min(workers, len(tasks)))]
    try:
        while todo or any(one.task for one in crew):
            for one in crew:
                if one.task is None and todo:
                    one.give(todo.pop(), timeout)
            for one in crew:
                done = one.news(told)
                if done is not None:
                    yield done
            wait([one.connection for one in crew if one.task], timeout=0.1)
    finally:
        for one in crew:
            one.stop()


class _Worker:
    """A process that computes one task after the other; a new one takes the place of one that died."""

    def __init__(self, plugins: list[Path], workers: int) -> None:
        self._plugins = plugins
        self._workers = workers
        self.task: Task | None = None
        self._deadline: float | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, self._plugins, self._workers)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process is seen as the end of the pipe

    def give(self, task: Task, timeout: float | None) -> None:
        self.task = task
        self._deadline = time.monotonic() + timeout if timeout else None
        with suppress(OSError):  # a process that died while idle is seen as dead by the next look for news
            self.connection.send(task)

    def news(self, told: Told) -> Done | None:
        """Passes progress on; returns what is done, or the failure of a process that died or took too long."""
        task = self.task
        if task is None:
            return None
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if isinstance(message, Done):
                    self.task = None
                    return message
                told(task, *message)
        except (EOFError, OSError):
            self._process.join()
            return self._failed(task, *_cause(self._process.exitcode))
        if self._deadline and time.monotonic() > self._deadline:
            return self._failed(task, "timeout", "it took longer than --timeout allows")
        return None

    def _failed(self, task: Task, status: Status, reason: str) -> Done:
        self.task = None
        self.stop()
        self._start()
        return failure(task, status, reason)

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.connection.close()


def _cause(exit_code: int | None) -> tuple[Status, str]:
    if exit_code == -signal.SIGKILL:
        return "out-of-memory", "its process was killed, the usual sign that memory ran out"
    return "error", f"its process ended with exit code {exit_code}"


def _serve(connection: Connection, plugins: list[Path], workers: int) -> None:
    """The life of a worker process: tasks in, progress and results out, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    import torch

    from bench.plugins.registry import add_file

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    for path in plugins:
        add_file(path)
    with suppress(EOFError, OSError):
        while True:
            task = connection.recv()
            connection.send(_compute(task, lambda share, doing: connection.send((share, doing))))


def _compute(task: Task, progress: Callable[[float, str], None]) -> Done:
    """A task's result; whatever is raised becomes a record that says so."""
    from bench.contracts import NotApplicableError
    from bench.engine.judge import CertificateError
    from bench.engine.latency import measure_latency
    from bench.engine.pictures import patch_png
    from bench.engine.run import run_cell
    from bench.memory import out_of_memory

    cell = task.cell
    try:
        if task.latency:
            latency = measure_latency(cell.dataset, cell.model, cell.defense, task.setting, progress)
            return Done(task, latency)
        computed = run_cell(cell, task.setting, progress)
        return Done(task, computed.outcome, patch_png(computed))
    except (BrokenPipeError, ConnectionError):
        raise
    except NotApplicableError as error:
        return failure(task, "not-applicable", str(error))
    except CertificateError as error:
        return failure(task, "error", f"{BROKEN}: {error}")
    except Exception as error:
        return failure(task, "out-of-memory" if out_of_memory(error) else "error", _told(error))


def _told(error: BaseException) -> str:
    """The error with the place that raised it, by file name: folders are nobody's business."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def failure(task: Task, status: Status, reason: str) -> Done:
    """The record of a task that came to nothing."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Done(task, Outcome(cell=task.cell, status=status, reason=reason, date=now))
