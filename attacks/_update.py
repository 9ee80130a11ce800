"""How a patch moves: along the gradient, its sign, or Adam's direction; for one patch or one for each image."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Update = Literal["gradient", "sign", "adam"]


class Mover:
    """Turns gradients into steps downhill and remembers what it must.

    `gradient`: step_size times the (accumulated) gradient; with momentum that is SGD as torch has it.
    `sign`: step_size times the sign of the accumulated gradient, each gradient at mean size 1 before it is added
    (momentum as in arXiv 1710.06081).
    `adam`: Adam (arXiv 1412.6980) with β = `momentum`, 0.999; every value has its own moments.

    With `own`, the first axis holds patches that are independent of each other.
    """

    def __init__(self, update: Update, step_size: float, momentum: float, own: bool = False) -> None:
        self._update, self._step_size, self._momentum, self._own = update, step_size, momentum, own
        self._steps = 0
        self._first = self._second = torch.zeros(())

    def __call__(self, values: Tensor, gradient: Tensor, scale: float = 1.0) -> Tensor:
        """The values after one step, kept in [0, 1]; `scale` shortens the step."""
        self._steps += 1
        return (values - self._step_size * scale * self._direction(gradient)).clamp(0, 1)

    def keep(self, rows: Tensor) -> None:
        """Goes on with these patches alone."""
        self._first, self._second = (state[rows] if state.dim() else state for state in (self._first, self._second))

    def _direction(self, gradient: Tensor) -> Tensor:
        momentum = self._momentum
        if self._update == "adam":
            self._first = momentum * self._first + (1 - momentum) * gradient
            self._second = 0.999 * self._second + 0.001 * gradient**2
            first = self._first / (1 - momentum**self._steps)
            second = self._second / (1 - 0.999**self._steps)
            return first / (second.sqrt() + 1e-12)
        if self._update == "gradient":
            self._first = momentum * self._first + gradient
            return self._first
        size = gradient.abs().flatten(1).mean(1)[:, None, None, None] if self._own else gradient.abs().mean()
        self._first = momentum * self._first + gradient / size.clamp(min=torch.finfo(gradient.dtype).tiny)
        return self._first.sign()
