"""Checks the range of parameters."""

from __future__ import annotations

import math


def within(what: str, value: float | None, low: float, high: float, hint: str) -> None:
    """Raises ValueError unless low <= value <= high, or value is None."""
    if value is None or low <= value <= high:
        return
    allowed = f"{low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
    raise ValueError(f"Expected {what} of {allowed}, but got {value:g}; {hint}.")
