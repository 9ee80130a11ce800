"""Signed gradient ascent, on all pixels or on a patch: the attack that networks are trained against."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Images, Streams

from ._squares import Mask
from ._training import evaluating


def ascend(
    network: nn.Module,
    images: Images,
    labels: Tensor,
    rng: Streams,
    *,
    eps: float,
    steps: int,
    step_size: float,
    random_start: bool = False,
    mask: Mask | None = None,
) -> Images:
    """Images on which the network's cross-entropy is larger.

    Args:
        network: called in evaluation mode; its weights and batch norm statistics do not change.
        images: shape (n, c, h, w), in [0, 1].
        labels: shape (n,).
        rng: one stream for each image.
        eps: how far each value may move.
        steps: number of steps.
        step_size: how far a step moves each value.
        random_start: whether to start at a random point within eps.
        mask: which pixels may change; all by default.

    Returns:
        New images within eps, in [0, 1].
    """
    where = torch.ones_like(images[:, :1]) if mask is None else mask.to(images.dtype)
    attacked = images.detach()
    if random_start:
        attacked = attacked + rng.uniform(*images.shape[1:], low=-eps, high=eps).to(images.dtype) * where
        attacked = attacked.clamp(0, 1)
    with evaluating(network):
        for _ in range(steps):
            attacked = attacked + step_size * loss_gradient(network, attacked, labels, rng).sign() * where
            attacked = (images + (attacked - images).clamp(-eps, eps)).clamp(0, 1).detach()
    return attacked


def loss_gradient(network: nn.Module, images: Images, labels: Tensor, rng: Streams) -> Images:
    """The gradient of each image's cross-entropy with respect to the image."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(network(images, rng), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient
