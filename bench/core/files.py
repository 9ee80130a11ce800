"""Files that are written whole or not at all, and hashes of what they hold."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from bench.errors import InputError

_SETTLED = 2_000_000_000
"""Nanoseconds after which a change of a file is sure to show in its time of change."""


def write_text(path: Path, text: str, lasting: bool = True) -> None:
    """Writes a text file, as `write_bytes`."""
    write_bytes(path, text.encode(), lasting)


def write_bytes(path: Path, content: bytes | memoryview, lasting: bool = True) -> None:
    """Writes a file whole or not at all; `lasting` waits until it would survive a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def file_version(path: Path) -> tuple[int, int]:
    """Size and time of change of a file; two versions of it differ in one of them.

    The time is that of the call if the file changed moments ago, since the next change might get the same one.
    """
    state, now = path.stat(), time.time_ns()
    return state.st_size, state.st_mtime_ns if now - state.st_mtime_ns > _SETTLED else now


def content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of all files below a folder, in hex.

    A file is read once per process for each of its versions. Raises InputError if it cannot be read.
    """
    try:
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            parts = [f"{file.relative_to(path).as_posix()} {content_hash(file)}" for file in files]
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return _hash_file(path, file_version(path))
    except OSError as error:
        raise InputError(f"Expected a file that can be read at {path}, but: {error.strerror or error}.") from error


@lru_cache(maxsize=4096)
def _hash_file(path: Path, version: tuple[int, int]) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
