"""GreedyFool: as few pixels as possible, chosen by gradient and by how little they show (Dong et al., NeurIPS 2020).

Stage 1 adds the pixel with the largest mean_c |g| · weight (g: gradient of the margin) and moves all chosen pixels,

    x ← clip(x − eps/2 · (g on the chosen) / max|g on the chosen|),     until the margin is below −confidence;

with eps under 128/255 one pixel more in each step. Stage 2 drops the weakest pixels again, one after the other: the
rest is scaled to lengths eps/10, 2 eps/10, …, eps, and the smallest that still succeeds is kept.

Two stages stop early: they drop pixels, but never exchange one for a better one. So after them pixels are exchanged one
for one as gradients suggest, all at the ends of their range (`_exchange.py`; our own). With `pixels` as a cap, this is
for images that are left or need more. Without a cap, it is for all that are fooled: with fewer and fewer pixels, until
it fails; not with a `distortion`, where a pixel more may show less. The record says how many pixels each success took
("pixels").

Departures. The goal is the margin, targeted or not; no class count is built in. Where every weighted gradient is zero,
the weights are left aside for that step (otherwise the attack stands still). Stage 2 is repeated until no single pixel
can go, and with `blocks` it tries many of the weakest at once, halving on failure. Colours come to lie on the 8-bit
grid in stage 2 (`eight_bit`). The network that draws the authors' distortion map is not ours to ship: `sigma`, a local
contrast, stands in for it, or a network of your own. The default `confidence` is not 0, so that rounding cannot undo
a success. All images go in lockstep; the paper's program takes one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.contracts import Attack, Budget, Goal, Images, Linf, Model, Pixels, Streams

from ._exchange import exchanged
from ._reduction import Reduction, changed
from ._steps import LinfBall, input_gradient
from ._variants import check_pixels
from ._visibility import Distortion, Pool, check_generator, weights


@dataclass(frozen=True)
class GreedyFool(Attack):
    """As few pixels as possible, found by gradients: greedily added, then dropped again.

    Attributes:
        pixels: how many pixels may change, 1 or more; none: any number, and the record says how many it took.
        eps: how far each value may move, as a share of the range, in (0, 1].
        steps: of stage 1, 1 or more; for eps of 128/255 and more each adds one pixel.
        reductions: tries of stage 2, 0 or more; each is ten or eleven queries.
        exchanges: exchanges for each number of pixels, 0 or more; with 0 and no cap, the paper's two stages alone.
        confidence: margin between logits that a success must have, 0 or more; more survives filters better.
        distortion: which pixels show less: all the same, by local contrast, or by a network in a file.
        generator: for `distortion=generator`: a file made by torch.export.save; images -> map (n, 1, h, w) in [0, 1].
        pool: how the map is blurred; `paper` is along the flattened image, as the authors' program does it.
        blocks: stage 2 tries to drop many pixels at once.
        eight_bit: changed values are rounded to multiples of 1/255, where eps leaves room.
    """

    pixels: int | None = 10
    eps: float = 1.0
    steps: int = 200
    reductions: int = 500
    exchanges: int = 200
    confidence: float = 1e-3
    distortion: Distortion = "none"
    generator: str = ""
    pool: Pool = "2d"
    blocks: bool = True
    eight_bit: bool = True

    title = "GreedyFool"
    paper = "Dong et al., GreedyFool: Distortion-Aware Sparse Adversarial Attack, NeurIPS 2020, arXiv 2010.13773"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 40, "reductions": 40, "exchanges": 40},
        "paper": {
            "pixels": None,
            "steps": 10_000,
            "reductions": 3000,
            "exchanges": 0,
            "confidence": 0.0,
            "distortion": "sigma",
            "pool": "paper",
            "blocks": False,
            "eight_bit": False,
        },
    }
    access = "gradients"

    def __post_init__(self) -> None:
        if self.pixels is not None:
            check_pixels(self.pixels)
        if not 0 < self.eps <= 1:
            raise ValueError(f"eps is a share of the range in (0, 1], such as 10/255; got {self.eps}.")
        if self.steps < 1 or min(self.reductions, self.exchanges) < 0:
            raise ValueError(
                f"steps is 1 or more, reductions and exchanges are 0 or more; got {self.steps}, {self.reductions} and "
                f"{self.exchanges}."
            )
        if self.confidence < 0:
            raise ValueError(f"confidence is a margin, 0 or more; got {self.confidence}.")
        if (self.distortion == "generator") != bool(self.generator):
            raise ValueError("generator=FILE and distortion=generator belong together; got only one of them.")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where the generator does not fit."""
        if self.generator:
            check_generator(self.generator, image_shape)

    @property
    def budget(self) -> Budget:
        """That many pixels, each value by at most eps; without a cap, eps alone."""
        return Linf(self.eps) if self.pixels is None else Pixels(self.pixels, self.eps)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The fewest pixels found; where none succeed, the last of stage 1. Draws nothing."""
        visible = weights(images, self.distortion, self.generator, self.pool)
        adversarial, success = self._increased(model, images, goal, visible)
        self._reduce(model, images, goal, adversarial, success)
        if self.pixels is not None and self.pixels < images[0, 0].numel():
            over = (~success | (changed(images, adversarial).sum(1) > self.pixels)).nonzero()[:, 0]
            if len(over):
                part = model[over], images[over], goal[over]
                adversarial[over], success[over] = self._exchanged(*part, self.pixels, self.exchanges)
        elif self.pixels is None and self.exchanges and self.distortion == "none":
            self._lower(model, images, goal, adversarial, success)
        count = changed(images, adversarial).sum(1).to(images.dtype)
        model.note("pixels", count.masked_fill(~success, torch.nan))
        model.note("unconverged", ~success)
        return adversarial

    def _lower(self, model: Model, images: Images, goal: Goal, adversarial: Images, those: Bool[Tensor, "n"]) -> None:
        """Fewer pixels for `those`, written into `adversarial`, until no fewer are found."""
        failed = torch.zeros_like(goal.labels)  # with so many pixels
        while True:
            count = changed(images, adversarial).sum(1)
            between = (count - failed).masked_fill(~those, 0)
            cap = torch.where(between > 1, count - (between // 4).clamp(min=1), 0)
            # Those with the same number go together; the largest numbers first.
            rows = ((cap == cap.max()) & (cap > 0)).nonzero()[:, 0]
            if not len(rows):
                return
            pixels = int(cap[rows[0]])
            part = model[rows], images[rows], goal[rows]
            # From the pixels found so far; half the exchanges, as there are several numbers to try.
            fewer, success = self._exchanged(*part, pixels, -(-self.exchanges // 2), adversarial[rows])
            adversarial[rows[success]] = fewer[success]
            failed[rows[~success]] = pixels

    def _exchanged(
        self, model: Model, images: Images, goal: Goal, pixels: int, steps: int, start: Images | None = None
    ) -> tuple[Images, Bool[Tensor, "n"]]:
        """Adversarial images with so many pixels, fewer where some can be dropped, and which of them succeed."""
        found, success = exchanged(model, images, goal, pixels, self.eps, self.confidence, steps, start)
        self._reduce(model, images, goal, found, success)
        return found, success

    def _reduce(self, model: Model, images: Images, goal: Goal, adversarial: Images, those: Bool[Tensor, "n"]) -> None:
        """Stage 2 for `those`, written into `adversarial`."""
        if self.reductions and those.any():
            reduction = Reduction(self.eps, self.confidence, self.reductions, self.blocks, self.eight_bit)
            adversarial[those] = reduction.run(model[those], images[those], goal[those], adversarial[those])

    def _increased(
        self, model: Model, images: Images, goal: Goal, visible: Float[Tensor, "n hw"]
    ) -> tuple[Images, Bool[Tensor, "n"]]:
        """Stage 1: adversarial images, and which of them succeed."""
        result, success = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
        rows = torch.arange(len(images), device=images.device)
        adversarial, chosen = images, torch.zeros_like(visible, dtype=torch.bool)
        small = self.eps < 128 / 255
        for step in range(self.steps + 1):
            gradient, logits = input_gradient(model, adversarial, goal, "margin")
            done = goal.reached(logits) & (goal.margin(logits) < -self.confidence)
            leaving = done if step < self.steps else torch.ones_like(done)
            result[rows[leaving]], success[rows[leaving]] = adversarial[leaving], done[leaving]
            stay = ~leaving
            rows, images, adversarial, gradient = rows[stay], images[stay], adversarial[stay], gradient[stay]
            visible, model, goal = visible[stay], model[stay], goal[stay]
            if not len(rows):
                break
            count = step + 1 if small else 1
            chosen = _chosen(gradient, visible, chosen[stay], count, again=small)
            adversarial = _moved(images, adversarial, gradient, chosen, self.eps)
            model.progress((step + 1) / (self.steps + 1))
        return result, success


def _chosen(
    gradient: Images, visible: Float[Tensor, "n hw"], chosen: Bool[Tensor, "n hw"], count: int, again: bool
) -> Bool[Tensor, "n hw"]:
    """With the `count` best pixels beside those chosen; `again`: the best of all."""
    strength = gradient.abs().mean(1).flatten(1)
    if not again:
        strength = strength.masked_fill(chosen, 0)
    score = strength * visible
    score = torch.where((score > 0).any(1, keepdim=True), score, strength)
    values, best = score.topk(min(count, score.shape[1]), dim=1)
    return chosen.scatter(1, best, chosen.gather(1, best) | (values > 0))


def _moved(images: Images, adversarial: Images, gradient: Images, chosen: Bool[Tensor, "n hw"], eps: float) -> Images:
    """All chosen pixels downhill, the steepest value by eps/2."""
    gradient = gradient * chosen.reshape(-1, 1, *images.shape[2:])
    largest = gradient.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(images.dtype).tiny)
    return LinfBall(eps).project(adversarial - eps / 2 * gradient / largest, images)
