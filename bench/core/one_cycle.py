"""What a step of a training is taken with: which weights decay, and the rate and the momentum of the moment."""

from __future__ import annotations

import math

import torch
from torch import nn


def parameter_groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and kernels decay; vectors (biases, batch norms) do not."""
    weights = [one for one in network.parameters() if one.ndim > 1]
    vectors = [one for one in network.parameters() if one.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def set_learning_rate(optimiser: torch.optim.Optimizer, highest: float, step: float, steps: int) -> None:
    """One cycle: the rate rises from a 25th, then falls to nothing; the momentum goes the other way."""

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
