"""Feature squeezing: rejects images whose prediction changes when colour depth and detail are reduced.

Xu, Evans, Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks" (NDSS 2018,
arXiv 1704.01155).

    score(x) = max over squeezers s of ‖softmax f(x) − softmax f(s(x))‖₁         rejected above the threshold

The squeezers are a smaller bit depth, a median filter whose window may be even, and non-local means. The threshold is
the score that a stated share of clean training images exceeds. Departure: the authors' non-local means works in Lab
space on 8-bit images, ours in RGB without rounding, on a whole batch at once.

Gradients: that of the median filter is exact. Rounding to a few bits has none, and non-local means of this strength is
close to the identity, so an adaptive attacker uses the identity for both (arXiv 1802.00420). The attack descends on
class and rejection at once, or moves the image and its squeezed versions together, so that they agree (He et al. 2017,
arXiv 1706.04701); both ways it watches the true answer. Of 20 CIFAR-10 images, ten pixels by GreedyFool leave 10 by the
first, 6 by the second and 4 by the better of them (ResNet-20, without non-local means; Sparse-RS with 200 queries: 6).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Defense, Examples, Images, Logits, Streams, answers

from ._examples import choose
from ._pixels import pad_mirrored, straight_through
from ._ranges import within
from ._rejection import Detecting, Scores, calibrate, check_calibration
from ._substitute import SubstituteGradient
from .bit_depth import rounded
from .median import median


@dataclass(frozen=True)
class Squeeze(Defense):
    """Feature squeezing: rejects images whose prediction changes under squeezing.

    Attributes:
        bits: bit depth of each value, 1 to 8; 0 turns this squeezer off.
        median: side of the median window in pixels, at least 2; 0 turns this squeezer off.
        search: side of the window in which non-local means looks for similar patches, odd; 0 turns it off.
        similar: side of those patches in pixels, odd.
        strength: how much averaged patches may differ, in levels of 255, above 0.
        false_positive_rate: share of clean training images that the threshold rejects, in (0, 1).
        calibration_images: number of training images for the threshold, at least 1.
    """

    bits: int = 5
    median: int = 2
    search: int = 13
    similar: int = 3
    strength: float = 2.0
    false_positive_rate: float = 0.05
    calibration_images: int = 500

    title = "Feature squeezing"
    paper = "Xu et al. 2018, arXiv 1704.01155"
    kind = "detector"
    presets = {
        "quick": {"calibration_images": 200},
        "mnist": {"bits": 1, "search": 0},
        "cifar": {},
        "imagenet": {"search": 11, "strength": 4.0},
        "paper": {},
    }

    def __post_init__(self) -> None:
        within("bits", self.bits, 0, 8, "0 turns this squeezer off")
        within("a median window", self.median, 0, 15, "0 turns this squeezer off")
        within("a search window", self.search, 0, 51, "0 turns this squeezer off")
        within("a strength in levels", self.strength, 0.01, 255, "the paper's is 2 for CIFAR-10")
        within("similar patches", self.similar, 1, 15, "the paper's are 3 pixels wide")
        if self.median == 1 or self.similar % 2 == 0 or (self.search and self.search % 2 == 0):
            raise ValueError(
                f"Expected a median window of at least 2 and odd sides of search and similar, but got {self.median}, "
                f"{self.search} and {self.similar}; the paper's are 2, 13 and 3."
            )
        if not (self.bits or self.median or self.search):
            raise ValueError("Expected at least one squeezer, but bits, median and search are all 0.")
        check_calibration(self.false_positive_rate, self.calibration_images)

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The threshold, from the scores of clean training images."""
        images, _, streams = choose(training, rng, self.calibration_images, "squeeze")
        return calibrate(answers(_Scored(self, model), images, streams)[:, 0], self.false_positive_rate)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model that rejects."""
        squeezers = 1 + bool(self.bits) + bool(self.median) + bool(self.search)
        return Detecting(model, _Scored(self, model).score, learned, squeezers)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """Class and rejection, with the gradient of the score or of the versions' agreement; and the bare model."""
        defended = self.protect(model, learned)
        agreement = SubstituteGradient(defended, _Scored(self, model).agreement)
        return {"agreement": agreement, "defended": defended, "bare": model}

    def squeezed(self, images: Images) -> list[Images]:
        """The squeezed versions of a batch, each of the same shape."""
        versions = []
        if self.bits:
            versions.append(straight_through(images, partial(rounded, depth=self.bits)))
        if self.median:
            versions.append(median(images, self.median))
        if self.search:
            smooth = partial(non_local_means, search=self.search, similar=self.similar, strength=self.strength / 255)
            versions.append(straight_through(images, smooth))
        return versions


class _Scored(Classifier):
    """The score of feature squeezing, as the only logit."""

    def __init__(self, defense: Squeeze, model: Classifier) -> None:
        super().__init__()
        self.defense, self.model = defense, model
        self.num_classes, self.random = 1, model.random

    def forward(self, images: Images, rng: Streams) -> Logits:
        return self.score(images, self.model(images, rng), rng)[:, None]

    def score(self, images: Images, logits: Logits, rng: Streams) -> Scores:
        original = logits.softmax(1)
        squeezed = self.defense.squeezed(images)
        changes = [(original - self.model(version, rng).softmax(1)).abs().sum(1) for version in squeezed]
        return torch.stack(changes).amax(0)

    def agreement(self, images: Images, rng: Streams, logits: Logits) -> Logits:
        """For a gradient: mean log probabilities of an image and its squeezed versions, and how far these disagree.

        Of log probabilities, as those of versions that are sure of another class have no gradient in the score.
        """
        each = [self.model(version, rng).log_softmax(1) for version in (images, *self.defense.squeezed(images))]
        mean, classes = torch.stack(each).mean(0), self.model.num_classes
        own = each[0][:, :classes].argmax(1, keepdim=True)
        disagreement = mean[:, :classes].amax(1, keepdim=True) - mean.gather(1, own)
        return torch.cat([mean[:, :classes], disagreement + mean[:, classes:].sum(1, keepdim=True)], 1)


def non_local_means(images: Images, search: int, similar: int, strength: float) -> Images:
    """Replaces each pixel by a mean of the pixels around it, weighted by the similarity of their patches.

    Buades, Coll, Morel 2005: weight = exp(−(mean squared difference of the patches) / strength²).

    Args:
        images: shape (n, c, h, w), in [0, 1].
        search: side of the window to average over, odd.
        similar: side of the patches to compare, odd.
        strength: in units of the images.
    """
    reach, half = search // 2, similar // 2
    height, width = images.shape[2:]
    tall, wide = height + 2 * half, width + 2 * half
    padded = pad_mirrored(images, reach + half, reach + half)
    here = padded[..., reach : reach + tall, reach : reach + wide]
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for down in range(search):
        for right in range(search):
            there = padded[..., down : down + tall, right : right + wide]
            distance = F.avg_pool2d((here - there).square().mean(1, keepdim=True), similar, 1)
            weight = torch.exp(-distance / strength**2)
            total += weight * there[..., half : half + height, half : half + width]
            weights += weight
    return total / weights
