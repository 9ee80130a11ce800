"""States of unfinished work on disk, so that what was killed goes on where it was."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import torch

SECONDS = 30.0
"""How far apart the states of one piece of work are saved."""


class Checkpoint:
    """A file with the last state of some work: absent at first, and whole at any time."""

    def __init__(self, path: Path | None) -> None:
        """Keeps states at `path`, or nowhere."""
        self._path = path
        self._saved = monotonic()

    def load(self) -> dict[str, Any] | None:
        """The state that was saved last, on the CPU; None where there is none that can be read."""
        if self._path is None:
            return None
        try:
            state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        except Exception:  # absent, or damaged, which shows in many ways
            return None
        return state

    @property
    def due(self) -> bool:
        """Whether the last state is so old that a new one should be saved."""
        return self._path is not None and monotonic() - self._saved >= SECONDS

    def save(self, state: dict[str, Any]) -> None:
        """Saves a state (tensors, numbers, text; lists and dicts of them); where it cannot be written it is lost."""
        if self._path is None:
            return
        part = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, part)
            part.replace(self._path)
        except (OSError, RuntimeError):  # torch raises the second where the disk is full
            with suppress(OSError):
                part.unlink(missing_ok=True)
        self._saved = monotonic()

    def drop(self) -> None:
        """Forgets the state: the work is done."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
