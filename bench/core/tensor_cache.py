"""A cache of tensors on disk, named by a hash of what they were made from; it is no part of any results folder."""

from __future__ import annotations

import atexit
import hashlib
import math
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.core.locks import ProcessLock
from bench.errors import InputError

LIMIT_GIB = 10.0
"""The limit on disk, unless the environment variable BENCH_CACHE_LIMIT gives another one."""

_CHECKSUM = "sha256"
"""Where a file keeps the checksum of its tensors."""

_PATTERNS = ("*.safetensors", "*.pt", "*.part", ".part-*/*", "*.training/*")
_SILENCE = 86_400.0
"""Seconds after which a job of another machine counts as dead if it has not used the cache."""

_TEMPORARY: ContextVar[Path | None] = ContextVar("temporary cache folder", default=None)


def cache_folder() -> Path:
    """The environment variable BENCH_CACHE, or a folder in the user's cache; within `temporary_cache` another one."""
    if (temporary := _TEMPORARY.get()) is not None:
        return temporary
    given = os.environ.get("BENCH_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("defense-bench")


@contextmanager
def temporary_cache() -> Iterator[Path]:
    """Within it nothing is kept but in a temporary folder, which is returned, and deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        token = _TEMPORARY.set(Path(folder))
        try:
            yield Path(folder)
        finally:
            _TEMPORARY.reset(token)


def cache_path(kind: str, made_from: Mapping[str, str]) -> Path:
    """The file in which `cached` keeps these tensors."""
    key = hashlib.sha256(repr(sorted(made_from.items())).encode()).hexdigest()[:32]
    return cache_folder() / f"{kind}-{key}.safetensors"


def cached(kind: str, made_from: Mapping[str, str], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` returns for these inputs: from disk if they were made before.

    A file that is damaged is made again. While one process makes tensors, others that need them wait.

    Args:
        kind: a word for people who look into the folder.
        made_from: everything that the result depends on, as text.
        make: must depend on `made_from` alone.
    """
    path = cache_path(kind, made_from)
    tensors = _load(path)
    if tensors is None:
        with ProcessLock(path.with_suffix(".lock")):
            tensors = _load(path)  # another process may have made them meanwhile
            if tensors is None:
                tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
                _save(path, tensors)
    return tensors


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values, in the order of the mapping; hex."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _load(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file that is used from now on; None if it is absent or damaged."""
    begin_job()
    tensors = _read(path)
    if tensors is not None:
        with suppress(OSError):
            os.utime(path)  # `touch` would make an empty file where another process has just deleted it
    return tensors


def _read(path: Path) -> dict[str, Tensor] | None:
    """The tensors of a file; None if it is absent or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get(_CHECKSUM)
        tensors: dict[str, Tensor] = load_file(path)
    except Exception:  # damage shows in many ways
        return None
    return tensors if expected == checksum(dict(sorted(tensors.items()))) else None


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes the file whole or not at all; without room or permission, the work goes on without a cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
            part = Path(folder) / "tensors"
            save_file(tensors, part, {_CHECKSUM: checksum(dict(sorted(tensors.items())))})
            part.replace(path)
        _prune()
    except (OSError, SafetensorError) as error:
        warnings.warn(f"The cache {path.parent} cannot be written; next time this is made again. {error}", stacklevel=3)


def cache_limit() -> float:
    """Bytes on disk, from BENCH_CACHE_LIMIT in GiB; raises InputError if that is not a number above 0."""
    text = os.environ.get("BENCH_CACHE_LIMIT") or str(LIMIT_GIB)
    try:
        limit = float(text) * 2**30
    except ValueError:
        limit = -1
    if not limit > 0:
        raise InputError(f"Expected a number of GiB above 0 in BENCH_CACHE_LIMIT, but got {text!r}.")
    return limit


@dataclass(frozen=True)
class CachedFile:
    """A file of the cache: tensors, or the state of unfinished work."""

    path: Path
    size: int
    used: float

    @property
    def kind(self) -> str:
        """`learned` for what was trained and its unfinished states, `crafted` for images, `part` for what is left."""
        name = self.path.parent.name if self.path.parent.name.endswith(".training") else self.path.name
        return name.partition("-")[0] if name[0] != "." and "-" in name else "part"

    @property
    def intact(self) -> bool:
        """Whether its tensors have the checksum that it was written with; only whole tensors have one."""
        return self.path.suffix != ".safetensors" or _read(self.path) is not None


def cached_files() -> list[CachedFile]:
    """All files of the cache but downloaded data sets and the marks of jobs."""
    files = []
    for path in (path for pattern in _PATTERNS for path in sorted(cache_folder().glob(pattern))):
        with suppress(OSError):  # another process may have deleted it
            state = path.stat()
            files.append(CachedFile(path, state.st_size, state.st_mtime))
    return files


def begin_job() -> None:
    """Keeps what is used from now on in the cache for as long as this process lives.

    Raises InputError for a limit that is none, as `cache_limit`: before any work, not when its result is saved.
    """
    cache_limit()
    mark = _mark()
    with suppress(OSError):
        if not mark.is_file():
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
            mark.write_text(repr(mark.stat().st_mtime))  # of the clock that the files' times have
            atexit.register(mark.unlink, missing_ok=True)
        mark.touch()


def _mark() -> Path:
    return cache_folder() / "jobs" / f"{platform.node()}-{os.getpid()}"


def _jobs_since() -> float:
    """When the oldest job began that still runs; infinity without any. Marks of dead jobs are deleted."""
    begun = [math.inf]
    for mark in (cache_folder() / "jobs").glob("*-*"):
        host, _, process = mark.name.rpartition("-")
        with suppress(OSError, ValueError):
            lives = _lives(int(process)) if host == platform.node() else time.time() - mark.stat().st_mtime < _SILENCE
            if lives:
                begun.append(float(mark.read_text()))
            else:
                mark.unlink(missing_ok=True)
    return min(begun)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _prune() -> None:
    """Deletes what goes beyond the limit: what was left half-written and crafted before what was trained.

    Of each kind what was not used for longest goes first. What was used since the oldest running job began stays.
    """
    total, limit, since = 0, cache_limit(), _jobs_since()
    files = sorted(cached_files(), key=lambda file: (file.used >= since, file.kind == "learned", file.used))
    for file in reversed(files):
        total += file.size
        if total > limit and file.used < since:
            with suppress(OSError):
                file.path.unlink(missing_ok=True)
