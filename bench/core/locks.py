"""Locks between processes, on one machine or on a folder that several machines share.

They are locks of the operating system (`flock`; on NFS and most file systems of clusters the server keeps them), so
they end with the process that holds them, however it ends. Where a file system has no locks, nothing is locked: work
may then be done twice, and its results are the same.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

POLL = 0.2
"""Seconds between two tries of a process that waits."""


class ProcessLock:
    """A lock that one process holds at a time; its file is deleted with it."""

    def __init__(self, path: Path) -> None:
        """A lock in this file, which need not exist; not held yet."""
        self._path = path
        self._file: BinaryIO | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Takes the lock; without `wait`, returns False if another process has it."""
        while not (taken := self._take()) and wait:
            time.sleep(POLL)
        return taken

    def _take(self) -> bool:
        """Whether nobody else has the lock. It is held from now on, unless there can be no lock in this place."""
        if self._file is not None or fcntl is None:
            return True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._path.open("ab")
        except OSError:  # a folder that cannot be written
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink:
                self._file = file
                return True
        except (BlockingIOError, PermissionError):
            return False
        except OSError:  # a file system without locks
            return True
        finally:
            if self._file is None:
                file.close()
        return self._take()  # who held the lock has deleted the file meanwhile

    def release(self) -> None:
        """Gives the lock back, if it is held."""
        if self._file is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)  # while it is held: whoever has opened it meanwhile opens it again
            self._file.close()
            self._file = None

    def __enter__(self) -> ProcessLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
