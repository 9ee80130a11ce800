"""What detectors share: a threshold from clean images, and the last logit that stands for "rejected"."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.contracts import Artifact, Classifier, Images, Logits, Streams

Scores = Float[Tensor, "n"]
Score = Callable[[Images, Logits, Streams], Scores]
"""How suspicious images are, given the logits that the model has for them."""


def calibrate(scores: Scores, false_positive_rate: float) -> Artifact:
    """The threshold that at most this share of clean scores exceeds, and how far the usual score lies below it.

    Returns:
        "threshold" and "spread" (threshold minus median, above zero), scalars.
    """
    ordered = scores.detach().sort().values
    place = math.ceil(round(len(ordered) * (1 - false_positive_rate), 6)) - 1
    threshold = ordered[max(place, 0)]
    spread = (threshold - ordered[(len(ordered) - 1) // 2]).clamp_min(1e-3)
    return {"threshold": threshold.clone(), "spread": spread}


def check_calibration(false_positive_rate: float, calibration_images: int) -> None:
    """Raises ValueError where a detector cannot be calibrated so."""
    if not 0 < false_positive_rate < 1:
        raise ValueError(
            f"Expected a false_positive_rate between 0 and 1, such as 0.05, but got {false_positive_rate}."
        )
    if calibration_images < 1:
        raise ValueError(f"Expected calibration_images of at least 1, such as 300, but got {calibration_images}.")


def with_rejection(
    logits: Logits, rejected: Bool[Tensor, "n"], excess: Scores, rejects: bool
) -> Float[Tensor, "n classes"]:
    """Adds the logit that is the largest exactly where an image is rejected.

    It follows the score without a jump, so that an attacker who differentiates it is led out of rejection:
    largest class logit + asinh(excess), whose gradient does not vanish where the score is far off.

    Args:
        logits: shape (n, k), or (n, k + 1) with `rejects`.
        rejected: where the score exceeds its threshold.
        excess: score minus threshold, in units of the spread of clean scores.
        rejects: whether the last logit already stands for rejection; either one then rejects.
    """
    top = (logits[:, :-1] if rejects else logits).amax(1)
    wanted, edge = top + torch.asinh(excess), top.detach()
    above = torch.nextafter(edge, torch.full_like(edge, torch.inf))
    below = torch.nextafter(edge, torch.full_like(edge, -torch.inf))
    last = torch.where(rejected, torch.maximum(wanted, above), torch.minimum(wanted, below))
    if rejects:
        return torch.cat([logits[:, :-1], torch.maximum(last, logits[:, -1])[:, None]], 1)
    return torch.cat([logits, last[:, None]], 1)


class Detecting(Classifier):
    """A classifier that rejects the images whose score exceeds a threshold."""

    rejects = True
    threshold: Tensor
    spread: Tensor

    def __init__(self, model: Classifier, score: Score, learned: Artifact, passes: float) -> None:
        super().__init__()
        self.model, self.score = model, score
        self.num_classes, self.random = model.num_classes, model.random
        self.passes = model.passes * passes
        self.register_buffer("threshold", learned["threshold"])
        self.register_buffer("spread", learned["spread"])

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits with one more, the last one, for rejection."""
        logits = self.model(images, rng)
        score = self.score(images, logits, rng.derive("score"))
        threshold, spread = self.threshold.to(score), self.spread.to(score)
        return with_rejection(logits, score > threshold, (score - threshold) / spread, self.model.rejects)
