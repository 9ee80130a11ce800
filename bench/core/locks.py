"""Locks between processes, on one machine or on a folder that several machines share.

They are locks of the operating system (`flock`; on NFS and most file systems of clusters the server keeps them), so
they end with the process that holds them, however it ends. Where a file system has no locks, nothing is locked: work
may then be done twice, and its results are the same.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

POLL = 0.2
"""Seconds between two tries of a process that waits."""


class ProcessLock:
    """A lock that one process holds at a time; its file is deleted with it."""

    def __init__(self, path: Path) -> None:
        """A lock in this file, which need not exist; not held yet."""
        self._path = path
        self._lock = FileLock(path)

    def acquire(self, wait: bool = True) -> bool:
        """Takes the lock; without `wait`, returns False if another process has it."""
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=-1 if wait else 0, poll_interval=POLL)
        except Timeout:
            return False
        except OSError:  # a folder that cannot be written, or a file system without locks
            return True
        return True

    def release(self) -> None:
        """Gives the lock back, if it is held."""
        if self._lock.is_locked:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)  # while it is held: whoever has opened it meanwhile opens it again
            self._lock.release()

    def __enter__(self) -> ProcessLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
