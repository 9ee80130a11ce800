"""Processes for tasks, so that a crash, a hang or a lack of memory costs one task only."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch

from bench.engine.interference import InterferenceError, unchanged
from bench.engine.plan import LatencyTask, Task
from bench.engine.queue import TaskQueue
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
    queue: TaskQueue,
    plugins: list[Path],
    workers: int,
    timeout: float | None,
    on_progress: OnProgress,
    devices: Sequence[str] = (),
) -> Iterator[Done]:
    """Computes the tasks of a queue and yields each as soon as it is done and saved, in order for one worker.

    Args:
        queue: what to compute; it is closed in the end.
        plugins: files with third-party plugins, to be loaded in each process.
        workers: how many processes; 0 computes in this one, for debugging.
        timeout: seconds for one task, or None.
        on_progress: called now and then.
        devices: where the processes compute, in turn, with one process for each at least; by default where the tasks
            say.

    Raises:
        InputError: a timeout without a process that could be ended, or several devices for one process.
    """
    if workers == 0 and (timeout or len(devices) > 1):
        what = "--timeout needs a process that can be ended" if timeout else "Several devices need a process each"
        raise InputError(f"{what}: use --workers 1 or more, not 0.")
    if workers == 0:
        return _in_this_process(queue, on_progress)
    places = [devices[place % len(devices)] if devices else "" for place in range(max(workers, len(devices)))]
    return _in_workers(queue, plugins, places, timeout, on_progress)


def _in_this_process(queue: TaskQueue, on_progress: OnProgress) -> Iterator[Done]:
    last: Task | None = None
    with _marked_interrupts(), closing(queue):
        while queue:
            given = queue.next(last, [])
            if isinstance(given, Done):
                yield given
            elif given:
                last = given
                done = compute_task(given, lambda share, doing, task=given: on_progress(task, share, doing), _nothing)  # type: ignore[misc]
                queue.finish(done)
                yield done
            elif queue.waits:
                _wait_for_others(queue, on_progress)
            else:
                return


def _nothing() -> None:
    pass


def _wait_for_others(queue: TaskQueue, on_progress: OnProgress) -> None:
    for task in queue.left[:1]:  # for which there may be no time any more
        on_progress(task, 0, "another run computes it")
    time.sleep(0.1)


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
    queue: TaskQueue, plugins: list[Path], places: list[str], timeout: float | None, on_progress: OnProgress
) -> Iterator[Done]:
    crew = [_Worker(plugins, len(places), place) for place in places[: len(queue)]]
    try:
        while True:
            for worker in crew:
                yield from _busy(worker, crew, queue, timeout)
            busy = [worker for worker in crew if worker.task]
            if not busy and not (queue and queue.waits):
                return
            if not busy:
                _wait_for_others(queue, on_progress)
                continue
            wait([worker.connection for worker in busy], timeout=0.1)
            for worker in busy:
                done = worker.news(on_progress)
                if done is not None:
                    queue.finish(done)
                    yield done
    finally:
        for worker in crew:
            worker.stop()
        queue.close()


def _busy(worker: _Worker, crew: list[_Worker], queue: TaskQueue, timeout: float | None) -> Iterator[Done]:
    """Gives an idle worker a task, if there is one for it; yields those that other runs have computed."""
    while worker.task is None:
        given = queue.next(worker.last, [other.task for other in crew if other.task])
        if isinstance(given, Done):
            yield given
        elif given:
            worker.give(given, timeout)
        else:
            return


class _Worker:
    """A process that computes one task after the other; it is replaced when it dies or a plugin has spoiled it."""

    def __init__(self, plugins: list[Path], workers: int, device: str) -> None:
        self._plugins = plugins
        self._workers = workers
        self._device = device
        self.task: Task | None = None
        self.last: Task | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        arguments = (theirs, self._plugins, self._workers)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with _short_spinning():
            self._process.start()
        theirs.close()  # so that the end of the process shows as the end of the pipe

    def give(self, task: Task, timeout: float | None) -> None:
        """Begins a task. Its time runs from the moment when images and model are loaded."""
        if not self._process.is_alive():  # what ended it while it was idle has nothing to do with this task
            self._restart()
        self.task, self.last, self._timeout, self._deadline = task, task, timeout, float("inf")
        self._kills = _memory_kills()
        with suppress(OSError):  # seen by `news`
            own = replace(task.setting, device=self._device or task.setting.device)
            self.connection.send(replace(task, setting=own))

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
                    return replace(message, task=task)
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


@contextmanager
def _short_spinning() -> Iterator[None]:
    """Threads of processes that start here soon sleep while they wait, unless the user says how they should wait.

    On a busy machine, threads that spin take the cores from those that they are waiting for.
    """
    name = "GOMP_SPINCOUNT"
    given = name in os.environ or "OMP_WAIT_POLICY" in os.environ
    if not given:
        os.environ[name] = "10000"
    try:
        yield
    finally:
        if not given:
            del os.environ[name]


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

    threading.Thread(target=_end_with_parent, daemon=True).start()
    threads = torch.get_num_threads()
    load_plugins(plugins)
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        torch.set_num_threads(threads if isinstance(task, LatencyTask) else max(1, threads // workers))
        send(compute_task(task, lambda share, doing: send((share, doing)), lambda: send(_READY)))


def _end_with_parent() -> None:
    """Ends this process when the other side dies, so that other runs can take its work over at once."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
