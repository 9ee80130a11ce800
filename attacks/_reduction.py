"""Stage 2 of GreedyFool: restores changed pixels as long as the others, rescaled, still succeed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.contracts import Goal, Images, Model

from ._variants import ask


@dataclass(frozen=True)
class Reduction:
    """The parameters are those of `GreedyFool`, where `tries` is called `reductions`."""

    eps: float
    confidence: float
    tries: int
    blocks: bool
    eight_bit: bool

    @torch.no_grad()
    def run(self, model: Model, images: Images, goal: Goal, adversarial: Images) -> Images:
        """Adversarial images that still succeed with fewer pixels; all images at once, each at its own pace."""
        result, rows = adversarial.clone(), torch.arange(len(images), device=images.device)
        sweep = _Sweep.of(len(images), images.device)
        for _ in range(self.tries):
            order, count = _weakest_first(images, adversarial)
            finished = sweep.next_sweep(count)
            stay = ~finished
            rows, images, adversarial = rows[stay], images[stay], adversarial[stay]
            model, goal, sweep, order, count = model[stay], goal[stay], sweep[stay], order[stay], count[stay]
            if not len(rows):
                break
            sweep.fit(count)
            without = _without(images, adversarial, order, sweep.first, sweep.block)
            shorter, won = self._shortest(model, images, goal, without)
            adversarial = torch.where(won[:, None, None, None], shorter, adversarial)
            result[rows] = adversarial
            sweep.advance(won, count, self.blocks)
        return result

    def _shortest(
        self, model: Model, images: Images, goal: Goal, direction: Float[Tensor, "n c h w"]
    ) -> tuple[Images, Bool[Tensor, "n"]]:
        """The smallest multiple of each direction that succeeds, and whether any does."""
        lengths = images.new_tensor(_lengths(self.eps)).expand(len(images), -1)

        def succeeds(lengths: Tensor) -> Tensor:
            def make(part: slice) -> Tensor:
                return self._scaled(images[part], direction[part], lengths[part])

            margins, reached = ask(model, images, goal, Goal.margin, lengths.shape[1], make)
            return reached & (margins < -self.confidence)

        success = succeeds(lengths)
        shortest = lengths.gather(1, success.int().argmax(1, keepdim=True))
        won = success.any(1)
        if model.classifier.random:
            won &= succeeds(shortest)[:, 0]
        return self._scaled(images, direction, shortest)[:, 0], won

    def _scaled(
        self, images: Images, direction: Float[Tensor, "n c h w"], lengths: Float[Tensor, "n p"]
    ) -> Float[Tensor, "n p c h w"]:
        images = images[:, None]
        change = direction[:, None] * lengths[..., None, None, None]
        candidates = (images + change).clamp(0, 1)
        if self.eight_bit:
            rounded = (candidates * 255).round() / 255
            candidates = rounded.minimum(images + self.eps).maximum(images - self.eps)
        return torch.where(change == 0, images, candidates)


def _lengths(eps: float) -> list[float]:
    """Tenths of eps, in whole steps of 1/255, and eps itself."""
    step = max(1, int(eps * 25.5 + 1e-6))
    return [length / 255 for length in range(step, int(eps * 255 + 1e-6), step)] + [eps]


def changed(images: Images, adversarial: Images) -> Bool[Tensor, "n hw"]:
    """Which pixels differ."""
    return (images != adversarial).any(1).flatten(1)


def _weakest_first(images: Images, adversarial: Images) -> tuple[Int[Tensor, "n hw"], Int[Tensor, "n"]]:
    """Pixels by the mean size of their change, unchanged ones last; and how many have changed."""
    present = changed(images, adversarial)
    size = (adversarial - images).abs().mean(1).flatten(1)
    return size.masked_fill(~present, torch.inf).argsort(dim=1, stable=True), present.sum(1)


def _without(
    images: Images, adversarial: Images, order: Int[Tensor, "n hw"], first: Int[Tensor, "n"], block: Int[Tensor, "n"]
) -> Float[Tensor, "n c h w"]:
    """The changes except for `block` pixels from rank `first` on, scaled to a largest value of 1."""
    rank = torch.arange(order.shape[1], device=order.device)
    dropped = (rank >= first[:, None]) & (rank < (first + block)[:, None])
    kept = torch.ones_like(dropped).scatter(1, order, ~dropped).reshape(-1, 1, *images.shape[2:])
    change = (adversarial - images) * kept
    return change / change.abs().amax((1, 2, 3), keepdim=True)


@dataclass
class _Sweep:
    """Each image's position in a sweep over its changed pixels, weakest first.

    Attributes:
        first: rank of the weakest pixel to drop next.
        block: how many to drop at once; 0 in the very first try, which only rescales.
        dropped: whether this sweep has dropped any.
    """

    first: Int[Tensor, "n"]
    block: Int[Tensor, "n"]
    dropped: Bool[Tensor, "n"]

    @classmethod
    def of(cls, count: int, device: torch.device) -> _Sweep:
        """The start of a sweep."""
        zeros = torch.zeros(count, dtype=torch.int64, device=device)
        return cls(zeros, zeros, zeros > 0)

    def __getitem__(self, rows: Tensor) -> _Sweep:
        return _Sweep(self.first[rows], self.block[rows], self.dropped[rows])

    def next_sweep(self, count: Int[Tensor, "n"]) -> Bool[Tensor, "n"]:
        """Restarts ended sweeps; returns which images are finished: one pixel left, or a sweep that dropped none."""
        ended = self.first >= count
        finished = (ended & ~self.dropped) | ((count == 1) & (self.block > 0))
        self.first, self.dropped = self.first.masked_fill(ended, 0), self.dropped & ~ended
        return finished

    def fit(self, count: Int[Tensor, "n"]) -> None:
        """Limits the block, so that it ends with the changed pixels and leaves at least one of them."""
        self.block = torch.minimum(self.block, torch.minimum(count - self.first, count - 1))

    def advance(self, won: Bool[Tensor, "n"], count: Int[Tensor, "n"], blocks: bool) -> None:
        """Moves on by one pixel, or by blocks: a quarter of all at first, doubled on success and halved on failure."""
        self.dropped = self.dropped | (won & (self.block > 0))
        self.first = self.first + (~won & (self.block == 1))
        adapted = torch.where(won, 2 * self.block, self.block // 2)
        block = torch.where(self.block == 0, count // 4, adapted).clamp(min=1)
        self.block = block if blocks else torch.ones_like(block)
