"""A cache of tensors on disk, named by a hash of what they were made from; it is no part of any results folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

LIMIT = 4 * 2**30
"""Bytes on disk; beyond them the files that were not used for longest are deleted."""

_CHECKSUM = "sha256"
"""Where a file keeps the checksum of its tensors."""


def cache_folder() -> Path:
    """The environment variable BENCH_CACHE, or a folder in the user's cache."""
    given = os.environ.get("BENCH_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("defense-bench")


def cache_path(kind: str, made_from: Mapping[str, str]) -> Path:
    """The file in which `cached` keeps these tensors."""
    key = hashlib.sha256(repr(sorted(made_from.items())).encode()).hexdigest()[:32]
    return cache_folder() / f"{kind}-{key}.safetensors"


def cached(kind: str, made_from: Mapping[str, str], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` returns for these inputs: from disk if they were made before.

    A file that is damaged is deleted and made again.

    Args:
        kind: a word for people who look into the folder.
        made_from: everything that the result depends on, as text.
        make: must depend on `made_from` alone.
    """
    path = cache_path(kind, made_from)
    tensors = _load(path)
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
    try:
        with safe_open(path, framework="pt") as file:
            expected = (file.metadata() or {}).get(_CHECKSUM)
        tensors: dict[str, Tensor] = load_file(path)
    except FileNotFoundError:
        return None
    except Exception:  # damage shows in many ways
        expected, tensors = "", {}
    intact = expected == checksum(dict(sorted(tensors.items())))
    with suppress(OSError):
        path.touch() if intact else path.unlink(missing_ok=True)
    return tensors if intact else None


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    """Writes the file whole or not at all; without room or permission, the work goes on without a cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as folder:
            part = Path(folder) / "tensors"
            save_file(tensors, part, {_CHECKSUM: checksum(dict(sorted(tensors.items())))})
            part.replace(path)
        _prune(path.parent)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"The cache {path.parent} cannot be written; next time this is made again. {error}", stacklevel=3)


def _prune(folder: Path) -> None:
    """Deletes what was not used for longest, what was left half-written included."""
    patterns = ("*.safetensors", "*.pt", "*.part", ".part-*/*", "*.training/*")
    states = {}
    for file in (file for pattern in patterns for file in folder.glob(pattern)):
        with suppress(OSError):  # another process may have deleted it
            states[file] = file.stat()
    total = 0
    for file, state in sorted(states.items(), key=lambda item: item[1].st_mtime, reverse=True):
        total += state.st_size
        if total > LIMIT:
            with suppress(OSError):
                file.unlink(missing_ok=True)
