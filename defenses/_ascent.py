"""The attacks that networks are trained against: steps along the sign of the gradient, on every pixel or on a patch."""

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
    """Images on which the network's cross-entropy is larger; its weights and its batch norms stay as they are.

    Args:
        network: called in evaluation mode.
        images: shape (n, c, h, w), in [0, 1].
        labels: shape (n,).
        rng: one stream for each image.
        eps: how far each value may move.
        steps: how many steps.
        step_size: how far a value moves in one.
        random_start: whether it begins anywhere within eps.
        mask: which pixels may move; all by default.

    Returns:
        New images within eps, in [0, 1].
    """
    where = torch.ones_like(images[:, :1]) if mask is None else mask.to(images.dtype)
    reached = images.detach()
    if random_start:
        reached = reached + rng.uniform(*images.shape[1:], low=-eps, high=eps).to(images.dtype) * where
        reached = reached.clamp(0, 1)
    with evaluating(network):
        for _ in range(steps):
            reached = reached + step_size * gradient_of(network, reached, labels, rng).sign() * where
            reached = (images + (reached - images).clamp(-eps, eps)).clamp(0, 1).detach()
    return reached


def gradient_of(network: nn.Module, images: Images, labels: Tensor, rng: Streams) -> Images:
    """The gradient of each image's cross-entropy at the image; weights get none."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        loss = F.cross_entropy(network(images, rng), labels, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, images)
    return gradient
