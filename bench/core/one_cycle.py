"""The optimiser's settings in the course of a training: which weights decay, learning rate and momentum."""

from __future__ import annotations

import math

import torch
from torch import nn


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups for an optimiser: matrices and kernels decay, vectors (biases, batch norms) do not."""
    weights = [weight for weight in network.parameters() if weight.ndim > 1]
    vectors = [weight for weight in network.parameters() if weight.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def set_learning_rate(optimiser: torch.optim.Optimizer, highest: float, step: float, steps: int) -> None:
    """Sets the learning rate and the momentum for a step of one cycle (arXiv 1708.07120).

    Over a tenth of the steps the rate rises from a 25th of `highest` to `highest`, and then falls to nearly zero. The
    momentum goes the other way, between 0.95 and 0.85.
    """

    def between(start: float, end: float, share: float) -> float:
        return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)

    top = 0.1 * (steps + 1) - 1
    lowest = highest / 25
    if step <= top and top:
        rate, momentum = between(lowest, highest, step / top), between(0.95, 0.85, step / top)
    else:
        share = (step - top) / (steps - top)
        rate, momentum = between(highest, lowest / 1e4, share), between(0.85, 0.95, share)
    for group in optimiser.param_groups:
        group["lr"], group["betas"] = rate, (momentum, group["betas"][1])
