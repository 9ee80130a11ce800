"""Building blocks of gradient attacks: the gradient of a goal's loss, projection onto a ball, the best image so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contracts import Goal, Images, Labels, Model, Streams

Loss = Literal["cross-entropy", "margin"]


def losses(name: Loss, goal: Goal, logits: Tensor) -> Float[Tensor, "n"]:
    """The named loss of the goal, to be minimised, for each image."""
    return goal.margin(logits) if name == "margin" else goal.cross_entropy(logits)


def input_gradient(model: Model, images: Images, goal: Goal, loss: Loss) -> tuple[Images, Tensor]:
    """The gradient of each image's own loss, and the logits."""
    variable = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(variable)
        # A sum, not a mean, so that an image's gradient does not depend on the size of the batch.
        (gradient,) = torch.autograd.grad(losses(loss, goal, logits).sum(), variable)
    return gradient, logits.detach()


def check_steps(eps: float, steps: int, step_size: float | None) -> None:
    """Raises ValueError unless these numbers describe a descent."""
    if eps < 0:
        raise ValueError(f"Expected eps ≥ 0, such as 8/255, but got {eps}.")
    if steps < 1:
        raise ValueError(f"Expected steps ≥ 1, but got {steps}.")
    if step_size is not None and step_size <= 0:
        raise ValueError(f"Expected step_size > 0, or none for the default, but got {step_size}.")


def step_length(eps: float, steps: int, step_size: float | None) -> float:
    """The given step size, or one such that all steps together are 2.5 radii long (arXiv 1706.06083)."""
    return min(eps, 2.5 * eps / steps) if step_size is None else step_size


@dataclass(frozen=True)
class Ball(ABC):
    """All images within `eps` of their originals and in [0, 1]."""

    eps: float

    @abstractmethod
    def direction(self, gradient: Images) -> Images:
        """The steepest step of length 1; zero where the gradient is zero."""

    @abstractmethod
    def project(self, adversarial: Images, images: Images) -> Images:
        """The nearest images in the ball."""

    @abstractmethod
    def start(self, images: Images, rng: Streams) -> Images:
        """Random images in the ball."""

    def descend(self, adversarial: Images, images: Images, gradient: Images, step_size: float) -> Images:
        """One step downhill, inside the ball."""
        return self.project(adversarial - step_size * self.direction(gradient), images)


class LinfBall(Ball):
    """The largest change of a value is at most `eps`."""

    def direction(self, gradient: Images) -> Images:
        """The signs."""
        return gradient.sign()

    def project(self, adversarial: Images, images: Images) -> Images:
        """Clips the change, then the range; done this way, the audit's x ± eps holds bit for bit."""
        return (images + (adversarial - images).clamp(-self.eps, self.eps)).clamp(0, 1)

    def start(self, images: Images, rng: Streams) -> Images:
        """Uniform in the box."""
        noise = rng.uniform(*images.shape[1:], low=-self.eps, high=self.eps).to(images.dtype)
        return self.project(images + noise, images)


class L2Ball(Ball):
    """The Euclidean length of the change is at most `eps`."""

    def direction(self, gradient: Images) -> Images:
        """The gradient at length 1."""
        return gradient / _length(gradient).clamp(min=torch.finfo(gradient.dtype).tiny)

    def project(self, adversarial: Images, images: Images) -> Images:
        """Shortens the change, then clips the range, which shortens it further."""
        change = adversarial - images
        return (images + change * (self.eps / _length(change).clamp(min=self.eps))).clamp(0, 1)

    def start(self, images: Images, rng: Streams) -> Images:
        """Uniform in the ball."""
        direction = self.direction(rng.normal(*images.shape[1:]).to(images.dtype))
        radius = rng.uniform().to(images.dtype) ** (1 / images[0].numel()) * self.eps
        return self.project(images + radius[:, None, None, None] * direction, images)


def _length(change: Images) -> Float[Tensor, "n 1 1 1"]:
    length: Tensor = change.flatten(1).norm(dim=1)
    return length[:, None, None, None]


class Best:
    """The best adversarial version of each image so far, by a score to be minimised.

    Attributes:
        images: the best versions; the originals before anything was offered.
        scores: their scores; infinite before anything was offered.
    """

    def __init__(self, images: Images) -> None:
        self.images = images.clone()
        self.scores = torch.full((len(images),), torch.inf, dtype=images.dtype, device=images.device)

    def offer(self, rows: Labels, images: Images, scores: Float[Tensor, "m"]) -> Tensor:
        """Keeps those of `images` (for these rows) with a better score; returns which these are."""
        better = scores < self.scores[rows]
        kept = rows[better]
        self.images[kept] = images[better]
        self.scores[kept] = scores[better].to(self.scores.dtype)
        return better
