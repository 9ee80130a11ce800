"""Curriculum: the order of training images, from simple to complex by the measure that ranks slices.

Deep curriculum learning optimization (Ghebrechristos and Alaghband, SN Computer Science 2020), as used by the paper on
volumization (2024, section 3.3).

`batch` ranks the images inside each minibatch, as printed. That order has no effect on an optimiser step: the mean
loss, the batch norms and thus the gradient are the same. The others order across steps: `macro` ranks a macro-batch of
several minibatches, which are then taken in turn; `pacing` ranks all images once, starts with the easiest, and over
half of the epochs extends them to all images, with as many steps per epoch as without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from bench.contracts import Images, Labels

from ._volume import Ranking

Syllabus = Literal["none", "batch", "macro", "pacing"]


@dataclass(frozen=True)
class Curriculum:
    """The minibatches of every epoch.

    Attributes:
        syllabus: how images are ordered.
        ranking: from simple to complex, with one of the images as the reference.
        images: the training images, shape (n, c, h, w).
        batch_size: images per step.
        epochs: number of epochs.
        macro: minibatches per macro-batch.
        easiest: share of the images that `pacing` starts with.
    """

    syllabus: Syllabus
    ranking: Ranking
    images: Images
    batch_size: int
    epochs: int
    macro: int = 16
    easiest: float = 0.33

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        """The rows of the ⌈n / batch_size⌉ minibatches of an epoch; all rows, except with `pacing`."""
        if self.syllabus == "pacing":
            return torch.split(self._paced(epoch, generator), self.batch_size)
        shuffled = torch.randperm(len(self.images), generator=generator)
        if self.syllabus == "none":
            return torch.split(shuffled, self.batch_size)
        together = self.batch_size * (self.macro if self.syllabus == "macro" else 1)
        ranked = [self.ranked(rows) for rows in torch.split(shuffled, together)]
        return [batch for rows in ranked for batch in torch.split(rows, self.batch_size)]

    def ranked(self, rows: Labels) -> Labels:
        """The same rows, the simplest image first."""
        order = self.ranking.order(self.images[rows.to(self.images.device)].flatten(1)[None])[0]
        return rows[order.to(rows.device)]

    def share(self, epoch: int) -> float:
        """λ(t) = min(1, λ₀ + (1 − λ₀) t / T) with T half of the epochs: the share that `pacing` has unlocked."""
        return min(1.0, self.easiest + (1 - self.easiest) * 2 * epoch / self.epochs)

    def _paced(self, epoch: int, generator: torch.Generator) -> Labels:
        unlocked = self._easiest_first[: math.ceil(self.share(epoch) * len(self.images))]
        rounds = math.ceil(len(self.images) / len(unlocked))
        drawn = [unlocked[torch.randperm(len(unlocked), generator=generator)] for _ in range(rounds)]
        return torch.cat(drawn)[: len(self.images)]

    @cached_property
    def _easiest_first(self) -> Labels:
        return self.ranked(torch.arange(len(self.images)))
