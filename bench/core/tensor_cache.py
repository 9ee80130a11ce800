"""A cache of tensors on disk, by the content of what they were made from; outside of any results folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import platformdirs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

LIMIT = 4 * 2**30
"""Bytes on disk; beyond them the files that were not used for longest are deleted."""


def cache_folder() -> Path:
    """Where the cache lies: the environment variable BENCH_CACHE, or the user's cache folder."""
    given = os.environ.get("BENCH_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("defense-bench")


def cache_path(kind: str, made_from: Mapping[str, str]) -> Path:
    """The file that `cached` keeps these tensors in."""
    key = hashlib.sha256(repr(sorted(made_from.items())).encode()).hexdigest()[:32]
    return cache_folder() / f"{kind}-{key}.safetensors"


def cached(kind: str, made_from: Mapping[str, str], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` returns for these inputs: from disk if they were made before.

    Args:
        kind: a word for people who look into the folder.
        made_from: everything that the result depends on, as text.
        make: called where the cache has nothing; must depend on `made_from` alone.
    """
    path = cache_path(kind, made_from)
    try:
        found: dict[str, Tensor] = load_file(path)
        path.touch()
        return found
    except (OSError, SafetensorError):  # absent, or cut short by a crash of the machine
        made = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        _save(path, made)
        return made


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes the file whole or not at all; without a writable cache the work goes on without one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as part:
            save_file(tensors, Path(part) / "tensors")
            (Path(part) / "tensors").replace(path)
        _prune(path.parent)
    except OSError:
        return


def _prune(cache_folder: Path) -> None:
    kept = (*cache_folder.glob("*.safetensors"), *cache_folder.glob("*.pt"), *cache_folder.glob("*.training/*"))
    files = sorted(kept, key=lambda one: one.stat().st_mtime, reverse=True)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > LIMIT:
            file.unlink(missing_ok=True)
