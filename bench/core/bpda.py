"""How an adaptive attacker differentiates a defense without a useful gradient: BPDA (arXiv 1802.00420)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class BPDA(torch.autograd.Function):
    """Backward pass differentiable approximation: the exact function forwards, a substitute backwards.

    `BPDA.apply(images, function, backward)` returns exactly `function(images)`; its gradient at `images` is
    `backward(images, gradient at the output)`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        function: Callable[[Tensor], Tensor],
        backward: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """The exact function, without a graph."""
        ctx.save_for_backward(images)
        ctx.substitute = backward
        return function(images.detach()).clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the substitute."""
        (images,) = ctx.saved_tensors
        return ctx.substitute(images, gradients[0]), None, None
