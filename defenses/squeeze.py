"""Feature squeezing: rejects images whose prediction changes when colours and details are squeezed out.

Xu, Evans, Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks" (NDSS 2018,
arXiv 1704.01155).

    score(x) = max over squeezers s of ‖softmax f(x) − softmax f(s(x))‖₁         rejected where above the threshold

The squeezers are a smaller bit depth, a median filter whose window may be even, and non-local means. The threshold
is the score that a stated share of clean training images exceeds. Departures: the authors' non-local means works in
the Lab space on 8-bit images, ours in RGB without rounding, on a whole batch at once.

Gradients: the median filter's is exact; rounding to few bits has none and non-local means of this strength is close
to the identity, so an attacker who knows takes the identity for both (arXiv 1802.00420). He descends on class and
rejection at once, or turns the image and its squeezed versions together, which then agree (He et al. 2017,
arXiv 1706.04701).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from bench.contracts import BPDA, Artifact, Classifier, Defense, Examples, Images, Logits, Streams, answers

from ._examples import choose
from ._pixels import pad_mirrored
from ._ranges import within
from ._rejection import Detecting, Scores, calibrate, check_calibration
from .median import Median


@dataclass(frozen=True)
class Squeeze(Defense):
    """Feature squeezing: rejects images whose prediction changes under squeezing.

    Attributes:
        bits: bits that are left of each value, 1 to 8; 0 leaves this squeezer out.
        median: side of the median window in pixels, at least 2; 0 leaves this squeezer out.
        search: side of the window in which non-local means looks for similar patches, odd; 0 leaves it out.
        similar: side of those patches in pixels, odd.
        strength: how different patches may be that are averaged, in levels of 255, above 0.
        false_positive_rate: share of clean training images that the threshold rejects, in (0, 1).
        calibration_images: how many training images set the threshold, at least 1.
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
        within("bits", self.bits, 0, 8, "0 leaves this squeezer out")
        within("a median window", self.median, 0, 15, "0 leaves this squeezer out")
        within("a search window", self.search, 0, 51, "0 leaves this squeezer out")
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
        """The threshold: scores of clean training images."""
        images, _, streams = choose(training, rng, self.calibration_images, "squeeze")
        return calibrate(answers(_Scored(self, model), images, streams)[:, 0], self.false_positive_rate)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model that rejects."""
        squeezers = 1 + bool(self.bits) + bool(self.median) + bool(self.search)
        return Detecting(model, _Scored(self, model).score, learned, squeezers)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """Class and rejection; all squeezed versions together; and the bare model, whose attack may pass unseen."""
        return {"defended": self.protect(model, learned), "together": _Together(self, model), "bare": model}

    def squeezed(self, images: Images, rng: Streams) -> list[Images]:
        """The squeezed versions of a batch, each of the same shape."""
        done = []
        if self.bits:
            levels = 2**self.bits - 1
            done.append(BPDA.apply(images, lambda x: (x * levels).round() / levels, lambda x, gradient: gradient))
        if self.median:
            done.append(Median(self.median).clean(images, rng))
        if self.search:
            done.append(BPDA.apply(images, self._without_noise, lambda x, gradient: gradient))
        return done

    def _without_noise(self, images: Images) -> Images:
        return non_local_means(images, self.search, self.similar, self.strength / 255)


class _Scored(Classifier):
    """The score of feature squeezing, as the only logit."""

    def __init__(self, defense: Squeeze, model: Classifier) -> None:
        super().__init__()
        self.defense, self.model = defense, model
        self.num_classes, self.random = 1, model.random

    def forward(self, images: Images, rng: Streams) -> Logits:
        return self.score(images, self.model(images, rng), rng)[:, None]

    def score(self, images: Images, logits: Logits, rng: Streams) -> Scores:
        usual = logits.softmax(1)
        squeezed = self.defense.squeezed(images, rng)
        changes = [(usual - self.model(image, rng).softmax(1)).abs().sum(1) for image in squeezed]
        return torch.stack(changes).amax(0)


class _Together(Classifier):
    """The mean probabilities of an image and its squeezed versions, as logits."""

    def __init__(self, defense: Squeeze, model: Classifier) -> None:
        super().__init__()
        self.defense, self.model = defense, model
        self.num_classes, self.rejects, self.random = model.num_classes, model.rejects, model.random

    def forward(self, images: Images, rng: Streams) -> Logits:
        versions = [images, *self.defense.squeezed(images, rng)]
        mean = torch.stack([self.model(version, rng).softmax(1) for version in versions]).mean(0)
        return mean.clamp_min(1e-12).log()


def non_local_means(images: Images, search: int, similar: int, strength: float) -> Images:
    """Each pixel becomes the mean of those around it, weighted by how alike the patches around them are.

    Buades, Coll, Morel 2005: weight = exp(−(mean squared difference of the patches) / strength²).

    Args:
        images: shape (n, c, h, w), in [0, 1].
        search: side of the window whose pixels are averaged, odd.
        similar: side of the patches that are compared, odd.
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
