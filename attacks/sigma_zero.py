"""σ-zero: as few pixels as possible, by descent on a smooth count of them (Cinà et al., ICLR 2025, arXiv 2402.01879).

    loss = max(margin, 0) + Σ_p s_p / (s_p + sigma) / (number of p),     s_p = |δ_p|²

p runs over the pixels (as the budgets here count), or over single values as in the paper. Each step is one of Adam
along the gradient divided by its largest value, of a length that falls from step_size to a tenth along a cosine. Then
every δ_p with no value above a threshold τ becomes 0. τ rises by threshold_step · step length while the image is
fooled, and falls while it is not. What is kept is the success with the fewest pixels.

With a cap (`pixels`), an image is done at its first success within the cap; without a success it stays as it was.

Departures. The goal is the margin, targeted or not. Values are rounded to the 8-bit grid before the network is asked
(`eight_bit`), the gradient passing straight through, so that rounding cannot undo a success.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.contracts import Attack, Budget, Goal, Images, Linf, Model, Pixels, Streams

from ._reduction import changed
from ._steps import Best
from ._update import Mover
from ._variants import check_pixels


@dataclass(frozen=True)
class SigmaZero(Attack):
    """As few pixels as possible, by descending on a smooth count of them.

    Attributes:
        pixels: how many pixels may change, 1 or more; none: any number, and the record says how many it took.
        steps: one gradient each, 1 or more.
        count: what is counted while descending: a `pixel` with all its channels, or each `value`.
        step_size: length of the first step, above 0.
        sigma: how smooth the count is, above 0.
        threshold: changes smaller than this are undone at first, in [0, 1].
        threshold_step: how much it moves at a step of length 1, 0 or more.
        eight_bit: changed values are multiples of 1/255.
    """

    pixels: int | None = 10
    steps: int = 300
    count: Literal["pixel", "value"] = "pixel"
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01
    eight_bit: bool = True

    title = "σ-zero"
    paper = "Cinà et al., σ-zero: Gradient-based Optimization of ℓ0-norm Adversarial Examples, arXiv 2402.01879"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 100},
        "paper": {"pixels": None, "steps": 1000, "count": "value", "eight_bit": False},
    }
    access = "gradients"

    def __post_init__(self) -> None:
        if self.pixels is not None:
            check_pixels(self.pixels)
        if self.steps < 1:
            raise ValueError(f"steps is at least 1; got {self.steps}.")
        if self.step_size <= 0 or self.sigma <= 0:
            raise ValueError(f"step_size and sigma are above 0; got {self.step_size} and {self.sigma}.")
        if not 0 <= self.threshold <= 1 or self.threshold_step < 0:
            raise ValueError(
                f"threshold is in [0, 1] and threshold_step 0 or more; got {self.threshold} and {self.threshold_step}."
            )

    @property
    def budget(self) -> Budget:
        """That many pixels, freely; without a cap, every pixel."""
        return Linf(1.0) if self.pixels is None else Pixels(self.pixels)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The success with the fewest pixels, or the images as they are. Draws nothing."""
        cap = images[0, 0].numel() if self.pixels is None else self.pixels
        best, rows = Best(images), torch.arange(len(images), device=images.device)
        everything, originals = model, images
        adversarial, mover = images, Mover("adam", self.step_size, 0.9)
        threshold = images.new_full((len(images),), self.threshold)
        for step in range(self.steps):
            rounded = self._rounded(images, adversarial)
            gradient, fooled = self._gradient(model, images, goal, rounded)
            success = fooled & (changed(images, rounded).sum(1) <= cap)
            count = self._sizes(images, rounded).ne(0).flatten(1).sum(1).to(images.dtype)
            best.offer(rows[success], rounded[success], count[success])
            stay = ~success if self.pixels is not None else torch.ones_like(success)
            rows, images, adversarial, gradient = rows[stay], images[stay], adversarial[stay], gradient[stay]
            model, goal, fooled, threshold = model[stay], goal[stay], fooled[stay], threshold[stay]
            if not len(rows):
                break
            mover.keep(stay)
            share = 0.1 + 0.45 * (1 + math.cos(math.pi * step / self.steps))
            moved = mover(adversarial, gradient, share)
            small = self._sizes(images, moved) < threshold[:, None, None, None]
            adversarial = torch.where(small, images, moved)
            way = torch.where(fooled, self.threshold_step, -self.threshold_step)
            threshold = (threshold + self.step_size * share * way).clamp(0, 1)
            model.progress((step + 1) / self.steps)
        success = best.scores.isfinite()
        everything.note(
            "pixels", changed(originals, best.images).sum(1).to(images.dtype).masked_fill(~success, torch.nan)
        )
        everything.note("unconverged", ~success)
        return best.images

    def _gradient(
        self, model: Model, images: Images, goal: Goal, adversarial: Images
    ) -> tuple[Images, Bool[Tensor, "n"]]:
        """The gradient of each image's loss, divided by its largest value, and which images are fooled."""
        variable = adversarial.detach().requires_grad_()
        with torch.enable_grad():
            logits = model(variable)
            squares = self._squares(variable - images)
            counted = (squares / (squares + self.sigma)).flatten(1).mean(1)
            loss = goal.margin(logits).clamp(min=0) + counted
            (gradient,) = torch.autograd.grad(loss.sum(), variable)
        largest = gradient.abs().amax((1, 2, 3), keepdim=True)
        return gradient / largest.clamp(min=torch.finfo(gradient.dtype).tiny), goal.reached(logits.detach())

    def _squares(self, change: Images) -> Float[Tensor, "n p h w"]:
        squares = change.square()
        return squares if self.count == "value" else squares.sum(1, keepdim=True)

    def _sizes(self, images: Images, adversarial: Images) -> Float[Tensor, "n p h w"]:
        """The largest change of each thing that is counted."""
        sizes = (adversarial - images).abs()
        return sizes if self.count == "value" else sizes.amax(1, keepdim=True)

    def _rounded(self, images: Images, adversarial: Images) -> Images:
        if not self.eight_bit:
            return adversarial
        return torch.where(adversarial == images, images, (adversarial * 255).round() / 255)
