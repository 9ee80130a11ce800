"""Update rules for the content of patches: gradient, sign or Adam, for one patch or one per image."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Update = Literal["gradient", "sign", "adam"]


def check_updates(steps: int, step_size: float, momentum: float, smoothness: float) -> None:
    """Raises ValueError unless these numbers describe a descent."""
    if steps < 1:
        raise ValueError(f"Expected steps ≥ 1, but got {steps}.")
    if step_size <= 0:
        raise ValueError(f"Expected step_size > 0, but got {step_size}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"Expected momentum in [0, 1), but got {momentum}.")
    if smoothness < 0:
        raise ValueError(f"Expected smoothness ≥ 0, but got {smoothness}.")


def roughness(patch: Float[Tensor, "*n c s s"]) -> Float[Tensor, "*n"]:
    """Mean absolute difference between neighbouring values, in both directions (anisotropic total variation)."""
    down = (patch[..., 1:, :] - patch[..., :-1, :]).abs().sum((-3, -2, -1))
    right = (patch[..., 1:] - patch[..., :-1]).abs().sum((-3, -2, -1))
    channels, side = patch.shape[-3], patch.shape[-1]
    return (down + right) / max(1, 2 * channels * side * (side - 1))


class Mover:
    """A descent with a state.

    `gradient`: step_size times the accumulated gradient, as SGD with momentum.
    `sign`: step_size times the sign of the accumulated gradient; each gradient is scaled to a mean absolute value of 1
    before it is added (arXiv 1710.06081).
    `adam`: Adam (arXiv 1412.6980) with decay rates `momentum` and 0.999.
    """

    def __init__(self, update: Update, step_size: float, momentum: float) -> None:
        self._update, self._step_size, self._momentum = update, step_size, momentum
        self._steps = 0
        self._first = self._second = torch.zeros(())

    def __call__(self, content: Tensor, gradient: Tensor, share: float = 1.0) -> Tensor:
        """The content (…, c, s, s) after one step, clamped to [0, 1]; `share` scales the step."""
        self._steps += 1
        return (content - self._step_size * share * self._direction(gradient)).clamp(0, 1)

    def keep(self, rows: Tensor) -> None:
        """Continues with these patches only."""
        self._first, self._second = (state[rows] if state.dim() else state for state in (self._first, self._second))

    def _direction(self, gradient: Tensor) -> Tensor:
        momentum = self._momentum
        if self._update == "gradient":
            self._first = momentum * self._first + gradient
            return self._first
        if self._update == "sign":
            size = gradient.abs().mean((-3, -2, -1), keepdim=True)
            self._first = momentum * self._first + gradient / size.clamp(min=torch.finfo(gradient.dtype).tiny)
            return self._first.sign()
        self._first = momentum * self._first + (1 - momentum) * gradient
        self._second = 0.999 * self._second + 0.001 * gradient**2
        first = self._first / (1 - momentum**self._steps)
        second = self._second / (1 - 0.999**self._steps)
        return first / (second.sqrt() + torch.finfo(gradient.dtype).tiny)
