"""The errors that a user can mend."""

from __future__ import annotations


class InputError(ValueError):
    """Something that was asked for cannot be done as asked; says what was expected, what came, what to do."""


class MissingExtraError(InputError):
    """An optional package is not installed; says which extra brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package. Install it with: pip install 'defense-bench[{extra}]'")


class NotApplicableError(ValueError):
    """An attack or a defense that is right in itself makes no sense for this cell; the reason is its text."""


class RefusedError(RuntimeError):
    """Untrusted code, or a bundle with it, did what it must not; the text says what."""
