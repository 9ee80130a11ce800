"""Processes for tasks, so that a crash, a hang or a lack of memory costs one task only."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from bench.engine.interference import InterferenceError, unchanged
from bench.engine.plan import Task
from bench.engine.task import Done, UserInterrupt, compute_task, error_text, failure
from bench.errors import InputError
from bench.plugins.registry import add_file
from bench.records.schema import Status

OnProgress = Callable[[Task, float, str], None]
"""Called with a task, the fraction done, and what is being done."""

_READY = "ready"
"""What a worker sends when the time of its task begins."""

_KILL_COUNTS = ("/proc/vmstat", "/sys/fs/cgroup/memory.events")
"""Where Linux counts the processes that it killed for lack of memory."""


def execute(
    tasks: list[Task], plugins: list[Path], workers: int, timeout: float | None, on_progress: OnProgress
) -> Iterator[Done]:
    """Computes the tasks and yields each as soon as it is done, in order for one worker.

    Args:
        tasks: what to compute.
        plugins: files with third-party plugins, to be loaded in each process.
        workers: how many processes; 0 computes in this one, for debugging.
        timeout: seconds for one task, or None.
        on_progress: called now and then.

    Raises:
        InputError: a timeout without a process that could be ended.
    """
    if workers == 0 and timeout:
        raise InputError("--timeout needs a process that can be ended: use it with --workers 1 or more, not 0.")
    return (
        _in_this_process(tasks, on_progress)
        if workers == 0
        else _in_workers(tasks, plugins, workers, timeout, on_progress)
    )


def _in_this_process(tasks: list[Task], on_progress: OnProgress) -> Iterator[Done]:
    with _marked_interrupts():
        for task in tasks:
            yield compute_task(task, lambda share, doing, task=task: on_progress(task, share, doing), lambda: None)  # type: ignore[misc]


@contextmanager
def _marked_interrupts() -> Iterator[None]:
    """Ctrl-C raises UserInterrupt."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN or threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        raise UserInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_workers(
    tasks: list[Task], plugins: list[Path], workers: int, timeout: float | None, on_progress: OnProgress
) -> Iterator[Done]:
    todo = list(reversed(tasks))
    crew = [_Worker(plugins, workers) for _ in range(min(workers, len(tasks)))]
    try:
        while todo or any(worker.task for worker in crew):
            for worker in crew:
                if worker.task is None and todo:
                    worker.give(todo.pop(), timeout)
            for worker in crew:
                done = worker.news(on_progress)
                if done is not None:
                    yield done
            wait([worker.connection for worker in crew if worker.task], timeout=0.1)
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """A process that computes one task after the other; it is replaced when it dies or a plugin has spoiled it."""

    def __init__(self, plugins: list[Path], workers: int) -> None:
        self._plugins = plugins
        self._workers = workers
        self.task: Task | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, self._plugins, self._workers)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()  # so that the end of the process shows as the end of the pipe

    def give(self, task: Task, timeout: float | None) -> None:
        """Begins a task. Its time runs from the moment when images and model are loaded."""
        if not self._process.is_alive():  # what ended it while it was idle has nothing to do with this task
            self._restart()
        self.task, self._timeout, self._deadline = task, timeout, float("inf")
        self._kills = _memory_kills()
        with suppress(OSError):  # seen by `news`
            self.connection.send(task)

    def news(self, on_progress: OnProgress) -> Done | None:
        """Passes progress on; returns a task that is done, or the failure of a process that died or took too long."""
        task = self.task
        if task is None:
            return None
        try:
            for _ in range(100):  # a task that floods the pipe has a deadline, too
                if not self.connection.poll():
                    break
                message = self.connection.recv()
                if isinstance(message, Done):
                    self.task = None
                    if message.spoiled:
                        self._restart()
                    return message
                if message == _READY:
                    self._deadline = time.monotonic() + self._timeout if self._timeout else float("inf")
                else:
                    on_progress(task, *message)
        except (EOFError, OSError):
            return self._failed(task, *_cause(self._exit_code(), _memory_kills() > self._kills))
        if time.monotonic() > self._deadline:
            return self._failed(task, "timeout", f"it took longer than the {self._timeout:g} s of --timeout")
        return None

    def _exit_code(self) -> int | None:
        """Of a process that seems to have ended; None if it has closed the pipe and lives on."""
        for _ in range(20):
            if self._process.exitcode is not None:
                break
            time.sleep(0.1)
        return self._process.exitcode

    def _failed(self, task: Task, status: Status, reason: str) -> Done:
        self.task = None
        self._restart()
        return failure(task, status, reason)

    def _restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()
        self.connection.close()


def _cause(exit_code: int | None, for_lack_of_memory: bool) -> tuple[Status, str]:
    if exit_code == -signal.SIGKILL and for_lack_of_memory:
        return "out-of-memory", "its process was killed by the system, since memory ran out"
    if exit_code is None:
        return "error", "its process closed the connection to this one"
    by = f" ({signal.Signals(-exit_code).name})" if -exit_code in set(signal.Signals) else ""
    what = "was killed" if exit_code == -signal.SIGKILL else "ended"
    return "error", f"its process {what}, with exit code {exit_code}{by}"


def _memory_kills() -> int:
    """How many processes Linux has killed for lack of memory; 0 where it does not say."""
    counts = [0]
    for path in _KILL_COUNTS:
        with suppress(OSError):
            counts += [int(count) for count in re.findall(r"^oom_kill (\d+)$", Path(path).read_text(), re.MULTILINE)]
    return max(counts)


def load_plugins(files: list[Path]) -> None:
    """Registers the plugins in these files.

    Raises:
        InputError: one cannot be imported, or changes something that others use as it is imported.
    """
    for path in files:
        try:
            with unchanged():
                add_file(path)
        except (InterferenceError, SystemExit) as error:
            fault = str(error) if isinstance(error, InterferenceError) else error_text(error)
            raise InputError(f"The plugin {path} cannot be used. As it is imported: {fault}.") from error


def _serve(connection: Connection, plugins: list[Path], workers: int) -> None:
    """The life of a worker process: tasks in, progress and results out, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means

    def send(message: object) -> None:
        try:
            connection.send(message)
        except OSError:
            os._exit(1)  # nobody is waiting for this process any more

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    load_plugins(plugins)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        send(compute_task(task, lambda share, doing: send((share, doing)), lambda: send(_READY)))
