"""The extent of the changes that a budget allows."""

from __future__ import annotations

from bench.contracts import Budget, Patch, Pixels


def box_of(budget: Budget, height: int, width: int) -> tuple[int, int] | None:
    """Height and width of the smallest upright box that holds any allowed change; None if every pixel may change."""
    if isinstance(budget, Patch):
        return budget.box(height, width)
    if isinstance(budget, Pixels):
        return (1, 1) if budget.count == 1 else (height, width)
    return None
