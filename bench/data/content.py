"""What the files of a data set hold: hashes that are remembered, so that an unchanged file is read once."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bench.core.files import write_text
from bench.core.tensor_cache import cache_folder
from bench.data.pixels import THREADS, open_image
from bench.errors import InputError

_SETTLED = 2_000_000_000
"""Nanoseconds after a change of a file until which another change may leave its size and times as they are."""


def pixel_hash(path: Path) -> str:
    """SHA-256 of an image's size and colours, whatever its format, in hex; raises InputError if it is damaged."""
    colours = np.asarray(open_image(path).convert("RGB"))
    return hashlib.sha256(str(colours.shape).encode() + colours.tobytes()).hexdigest()


class FileHashes:
    """Hashes of the files below a folder, taken again only when a file's size or times have changed."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        """Looks at the files without reading them.

        Args:
            root: the folder; the hashes of its files are remembered together, in the cache folder.
            names: the paths of the files, relative to it.

        Raises:
            InputError: a file is missing.
        """
        self._root, self._names = root, names
        self._states = [_state(root / name) for name in names]

    def take(self, hash_of: Callable[[Path], str]) -> list[str]:
        """The hash of each file; `hash_of` is `content_hash` or `pixel_hash`."""
        key = hashlib.sha256(os.fsencode(self._root.absolute())).hexdigest()[:32]
        memory = cache_folder() / "hashes" / f"{hash_of.__name__}-{key}.json"
        known = _load(memory)
        entries = zip(self._names, self._states, strict=True)
        hashes = [known[name][1] if name in known and known[name][0] == state else "" for name, state in entries]
        missing = [place for place, digest in enumerate(hashes) if not digest]
        if not missing:
            return hashes
        with ThreadPoolExecutor(THREADS) as pool:
            paths = [self._root / self._names[place] for place in missing]
            for place, digest in zip(missing, pool.map(hash_of, paths), strict=True):
                hashes[place] = digest
        settled = time.time_ns() - _SETTLED
        fresh = zip(self._names, self._states, hashes, strict=True)
        _save(memory, {name: [state, digest] for name, state, digest in fresh if max(state[1:3]) < settled})
        return hashes


def _state(path: Path) -> list[int]:
    """What changes when a file does: its size, its times and its place on disk."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"The file {path} cannot be read: {error.strerror or error}.") from error
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _load(memory: Path) -> dict[str, list[Any]]:
    """What is remembered, as [state, hash] by names; nothing if the file is absent or damaged."""
    try:
        checksum, _, text = memory.read_text().partition("\n")
        known: dict[str, list[Any]] = json.loads(text) if checksum == _checksum(text) else {}
    except (OSError, ValueError):
        return {}
    return known


def _save(memory: Path, known: dict[str, list[Any]]) -> None:
    """Remembers hashes; without a writable cache the files are read again next time."""
    text = json.dumps(known, separators=(",", ":"))
    with suppress(OSError):
        write_text(memory, f"{_checksum(text)}\n{text}", lasting=False)


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
