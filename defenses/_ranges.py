"""Parameter errors that say what was expected, what came, and the way out."""

from __future__ import annotations

import math


def within(what: str, value: float | None, low: float, high: float, hint: str) -> None:
    """Raises ValueError unless low <= value <= high; None, for "the default", passes."""
    if value is None or low <= value <= high:
        return
    wanted = f"{low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
    raise ValueError(f"Expected {what} of {wanted}, but got {value:g}; {hint}.")
