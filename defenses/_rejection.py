"""Shared by detectors: a threshold calibrated on clean images, and the last logit, which means "rejected"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.contracts import Artifact, Classifier, Images, Logits, Streams, Wrapped

from ._ranges import within

Scores = Float[Tensor, "n"]
Score = Callable[[Images, Logits, Streams], Scores]
"""How suspicious images are, given the model's logits for them."""


def calibrate(scores: Scores, false_positive_rate: float) -> Artifact:
    """The threshold that at most this share of clean scores exceeds, and its distance from the median score.

    Returns:
        "threshold" and "spread" (threshold minus median, at least 0.001), scalars.
    """
    ordered = scores.detach().sort().values
    index = math.ceil(round(len(ordered) * (1 - false_positive_rate), 6)) - 1
    threshold = ordered[max(index, 0)]
    spread = (threshold - ordered[(len(ordered) - 1) // 2]).clamp_min(1e-3)
    return {"threshold": threshold.clone(), "spread": spread}


def check_calibration(false_positive_rate: float, calibration_images: int) -> None:
    """Raises ValueError for a rate outside (0, 1) or too few images."""
    within("a false_positive_rate", false_positive_rate, 1e-9, 1 - 1e-9, "0.05 is the default")
    within("calibration_images", calibration_images, 1, math.inf, "300 are enough")


def with_rejection(
    logits: Logits, rejected: Bool[Tensor, "n"], excess: Scores, rejects: bool
) -> Float[Tensor, "n classes"]:
    """Adds a logit that is the largest exactly for rejected images.

    It is a continuous function of the score, so that its gradient leads an attacker out of rejection: largest class
    logit + asinh(excess), whose gradient does not vanish far from the threshold.

    Args:
        logits: shape (n, k), or (n, k + 1) with `rejects`.
        rejected: whether the score exceeds its threshold.
        excess: score minus threshold, in units of the spread of clean scores.
        rejects: whether the last logit already means rejection; then either one rejects.
    """
    top = (logits[:, :-1] if rejects else logits).amax(1)
    smooth, edge = top + torch.asinh(excess), top.detach()
    above = torch.nextafter(edge, torch.full_like(edge, torch.inf))
    below = torch.nextafter(edge, torch.full_like(edge, -torch.inf))
    last = torch.where(rejected, torch.maximum(smooth, above), torch.minimum(smooth, below))
    if rejects:
        return torch.cat([logits[:, :-1], torch.maximum(last, logits[:, -1])[:, None]], 1)
    return torch.cat([logits, last[:, None]], 1)


class Detecting(Wrapped):
    """A classifier that rejects images with a score above a threshold."""

    threshold: Tensor
    spread: Tensor

    def __init__(self, model: Classifier, score: Score, learned: Artifact, passes: float) -> None:
        super().__init__(model, passes)
        self.score, self.rejects = score, True
        self.register_buffer("threshold", learned["threshold"])
        self.register_buffer("spread", learned["spread"])

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits, with one more at the end for rejection."""
        logits = self.model(images, rng)
        score = self.score(images, logits, rng.derive("score"))
        threshold, spread = self.threshold.to(score), self.spread.to(score)
        return with_rejection(logits, score > threshold, (score - threshold) / spread, self.model.rejects)
