"""How far apart the pixels may lie that a budget lets change."""

from __future__ import annotations

import torch

from bench.contracts import Budget, Patch, Pixels


def box_of(budget: Budget, height: int, width: int) -> tuple[int, int] | None:
    """Height and width of the smallest upright box that every allowed change of an image fits into.

    The rule of a patch budget is asked, not repeated: two pixels are changed, further and further apart.

    Returns:
        None where the budget lets every pixel change.
    """
    if isinstance(budget, Patch):
        return _reach(budget, height, width, across=False), _reach(budget, height, width, across=True)
    if isinstance(budget, Pixels):
        return (1, 1) if budget.count == 1 else (height, width)
    return None


def _reach(budget: Patch, height: int, width: int, across: bool) -> int:
    length = width if across else height
    images = torch.zeros(length, 1, height, width)
    adversarial = images.clone()
    apart = torch.arange(length)
    adversarial[:, 0, 0, 0] = 1
    if across:
        adversarial[apart, 0, 0, apart] = 1
    else:
        adversarial[apart, 0, apart, 0] = 1
    return int(budget.allows(images, adversarial).nonzero().max()) + 1
