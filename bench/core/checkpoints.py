"""States of unfinished work on disk, so that work that was interrupted resumes where it was."""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from bench.core.files import write_bytes

SECONDS = 30.0
"""Time between two saved states of one piece of work."""

_DIGEST_BYTES = hashlib.sha256().digest_size


class Checkpoint:
    """A file with the last state of some work and its checksum; there is none at first, and it is whole at any time."""

    def __init__(self, path: Path | None) -> None:
        """Keeps states at `path`, or nowhere."""
        self._path = path
        self._saved = monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, on the CPU; None if there is none, or if it is damaged."""
        if self._path is None:
            return None
        try:
            content = self._path.read_bytes()
            digest, state = content[:_DIGEST_BYTES], memoryview(content)[_DIGEST_BYTES:]
            if hashlib.sha256(state).digest() != digest:
                self.drop()
                return None
            loaded: dict[str, Any] = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
        except Exception:  # absent, or of another version, which shows in many ways
            return None
        return loaded

    @property
    def due(self) -> bool:
        """Whether the last state is so old that a new one should be saved."""
        return self._path is not None and monotonic() - self._saved >= SECONDS

    def save(self, state: dict[str, Any]) -> None:
        """Saves a state (tensors, numbers, text; lists and dicts of them); if it cannot be written, it is lost."""
        if self._path is None:
            return
        with suppress(OSError, MemoryError):
            buffer = io.BytesIO()
            buffer.seek(_DIGEST_BYTES)
            torch.save(state, buffer)
            content = buffer.getbuffer()
            content[:_DIGEST_BYTES] = hashlib.sha256(content[_DIGEST_BYTES:]).digest()
            write_bytes(self._path, content, lasting=False)
        self._saved = monotonic()

    def drop(self) -> None:
        """Deletes the state: the work is done."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
