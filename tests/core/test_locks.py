"""Locks where a file system has none, and locks whose files are deleted."""

from __future__ import annotations

import errno
import fcntl
import threading
from pathlib import Path
from typing import Any, NoReturn

import pytest

from bench.core.locks import ProcessLock


def test_on_a_file_system_without_locks_nobody_waits_and_nothing_is_left_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, operation: int) -> NoReturn:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with ProcessLock(tmp_path / "lock"):
        assert ProcessLock(tmp_path / "lock").acquire(wait=False)


def test_who_waited_for_a_lock_whose_file_is_gone_holds_the_file_that_others_see(tmp_path: Path) -> None:
    first, second, third = (ProcessLock(tmp_path / "lock") for _ in range(3))
    assert first.acquire()
    waiting = threading.Thread(target=second.acquire)
    waiting.start()
    first.release()
    waiting.join()
    assert not third.acquire(wait=False)
    second.release()
    assert third.acquire(wait=False)
    third.release()
    assert not (tmp_path / "lock").exists()


def test_a_file_that_was_deleted_before_it_was_locked_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, path = fcntl.flock, tmp_path / "lock"

    def deleted_before(file: Any, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        path.unlink()
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", deleted_before)
    with ProcessLock(path):
        assert not ProcessLock(path).acquire(wait=False)
