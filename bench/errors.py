"""Errors that a user can fix, and the one that untrusted code causes."""

from __future__ import annotations


class InputError(ValueError):
    """Wrong input; the text says what was expected, what came and what to do."""


class MissingExtraError(InputError):
    """An optional package is missing; the text says which extra installs it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package. Install it with: pip install 'defense-bench[{extra}]'")


class NotApplicableError(ValueError):
    """An attack or a defense makes no sense for a cell, although nothing is wrong with it; the text says why."""


class RefusedError(RuntimeError):
    """Untrusted code or a bundle with it did something that is not allowed; the text says what."""
