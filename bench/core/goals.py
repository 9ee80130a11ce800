"""What an attacker wants: any wrong class, or one particular class."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

Draws = Float[Tensor, "*draws n k"]


NO_CLASS = -1
"""The prediction of logits that are not finite: it is never correct."""


def predicted(logits: Draws) -> Int[Tensor, "*draws n"]:
    """The class of the largest logit; NO_CLASS for an image with a logit that is NaN or infinite."""
    return logits.argmax(-1).where(logits.isfinite().all(-1), NO_CLASS)


@dataclass(frozen=True)
class Goal:
    """An untargeted goal (`targets` is None) or a targeted one; foolbox calls it a criterion.

    The attacker minimises the losses, which have one value for each image. Logits may have a leading axis of draws
    (expectation over transformation). Losses are then averaged over the draws, and a goal is reached only if every
    draw reaches it.

    With `rejects`, the last logit means "rejected". A rejected image is no success for the attacker, so every loss
    counts that class among those to avoid.

    Attributes:
        labels: the true classes, shape (n,).
        targets: the classes wanted, shape (n,), or None.
        rejects: whether the last logit stands for rejection.
    """

    labels: Int[Tensor, "n"]
    targets: Int[Tensor, "n"] | None = None
    rejects: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> Goal:
        targets = None if self.targets is None else self.targets[rows]
        return Goal(self.labels[rows], targets, self.rejects)

    def reached(self, logits: Draws) -> Bool[Tensor, "n"]:
        """Which images are classified as the attacker wants; logits that are not finite are a success, too."""
        classes = predicted(logits)
        if self.targets is not None:
            hit = (classes == self.targets) | (classes == NO_CLASS)
        else:
            hit = classes != self.labels
            if self.rejects:
                hit = hit & (classes != logits.shape[-1] - 1)
        return hit if hit.dim() == 1 else hit.all(0)

    def eligible(self, logits: Draws) -> Bool[Tensor, "n"]:
        """Which clean images are worth attacking, in any of the draws if there are several.

        Untargeted: those classified correctly. Targeted: those neither of the target class nor classified as it.
        """
        classes = predicted(logits)
        if self.targets is None:
            hit = classes == self.labels
        else:
            hit = (classes != self.targets) & (self.labels != self.targets) & (classes != NO_CLASS)
        return hit if hit.dim() == 1 else hit.any(0)

    def cross_entropy(self, logits: Draws) -> Float[Tensor, "n"]:
        """Targeted: −log p_target. Untargeted: log p_label (log of p_label + p_rejected with `rejects`)."""
        log_p = F.log_softmax(logits, dim=-1)
        if self.targets is not None:
            return _mean_over_draws(-_pick(log_p, self.targets))
        avoid = _pick(log_p, self.labels)
        if self.rejects:
            avoid = torch.logaddexp(avoid, log_p[..., -1])
        return _mean_over_draws(avoid)

    def margin(self, logits: Draws) -> Float[Tensor, "n"]:
        """The best logit to avoid minus the best logit to reach; negative if the goal is reached."""
        wanted = torch.zeros_like(logits, dtype=torch.bool)
        if self.targets is not None:
            wanted.scatter_(-1, self.targets.expand(logits.shape[:-1])[..., None], True)
        else:
            wanted.fill_(True).scatter_(-1, self.labels.expand(logits.shape[:-1])[..., None], False)
            if self.rejects:
                wanted[..., -1] = False
        avoid = logits.masked_fill(wanted, -torch.inf).amax(-1)
        reach = logits.masked_fill(~wanted, -torch.inf).amax(-1)
        return _mean_over_draws(avoid - reach)


def _pick(values: Tensor, classes: Tensor) -> Tensor:
    return values.gather(-1, classes.expand(values.shape[:-1])[..., None])[..., 0]


def _mean_over_draws(values: Tensor) -> Tensor:
    return values if values.dim() == 1 else values.mean(0)
