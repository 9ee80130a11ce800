"""ANNNet: a small network detects images with a few attacked pixels and rejects them.

Shah et al., "ANNNet: adversarial detection network for N-pixel attacks" (ICIP 2020). Only descriptions by others were
available: a binary convolutional network, clean against N-pixel attacked images, N = 1, 3, 5.

    score(x) = net(x, x − median₃ₓ₃(x))                                       rejected above the threshold

The training set is made from the given model and its training images: each image once clean and once with 1, 3 or 5
pixels changed by a random search over places and corners of the colour cube. Some images are held out to set the
threshold and to measure the ROC curve and its area, also for numbers of pixels that the network was not trained on.
The network has four convolutions, and everything has an exact gradient.

Besides weights and threshold, the artifact has "auc", the area under the ROC curve; "roc", its points (false positive
rate, true positive rate); and "auc_by_count", rows (pixels, area) for 1, 3, 5 and the untrained 2 and 8 pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import (
    Artifact,
    Classifier,
    Defense,
    Examples,
    Images,
    InputError,
    Logits,
    Streams,
    answers,
)
from bench.training import Batch

from ._examples import choose, conv_net, fresh, packed, train, unpacked
from ._ranges import within
from ._rejection import Detecting, Scores, calibrate, check_calibration
from .median import Median

SEEN = (1, 3, 5)
UNSEEN = (2, 8)


@dataclass(frozen=True)
class ANNNet(Defense):
    """ANNNet: a network trained to detect attacked pixels rejects images.

    Attributes:
        training_images: number of training images to attack, at least 8.
        held_out: share of them that is used only for the threshold and the ROC curve, in (0, 1).
        tries: pixel changes that the random search tries on each image, at least 1.
        epochs: how often the network sees each image.
        false_positive_rate: share of clean held-out images that the threshold rejects, in (0, 1).
    """

    training_images: int = 600
    held_out: float = 0.3
    tries: int = 30
    epochs: int = 20
    false_positive_rate: float = 0.05

    title = "ANNNet"
    paper = "Shah et al. 2020 (ICIP)"
    kind = "detector"
    tuned_on = ("pixel",)
    presets = {
        "quick": {"training_images": 300, "tries": 20, "epochs": 15},
        "paper": {"training_images": 10_000, "tries": 300},
    }

    def __post_init__(self) -> None:
        within("training_images", self.training_images, 8, math.inf, "the default is 600")
        within("a held-out share", self.held_out, 0.01, 0.99, "0.3 leaves most images to train on")
        within("tries", self.tries, 1, math.inf, "the default is 30")
        within("epochs", self.epochs, 1, math.inf, "the default is 20")
        check_calibration(self.false_positive_rate, self.training_images)

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The network's weights, the threshold, and how well it separates clean from attacked images."""
        images, _, streams = choose(training, rng, self.training_images, "annnet")
        if len(images) < 4:
            raise InputError(f"Expected at least 4 training images for annnet, but the data set has {len(images)}.")
        held = min(max(2, round(len(images) * self.held_out)), len(images) - 2)
        counts = torch.tensor(SEEN, device=images.device)[streams.derive("counts").integers(len(SEEN))]
        attacked = search_pixels(model, images, counts, streams.derive("search"), self.tries)
        net = fresh(self._network(images.shape[1]), streams[held:])
        settings: dict[str, Any] = {"learning_rate": 3e-3, "batch_size": 64, "loss": _separation}
        train(net, images[held:], attacked[held:], training, streams[held:], epochs=self.epochs, **settings)
        detector = _Detector(net)
        clean, streams = images[:held], streams[:held]
        scores = answers(detector, clean, streams)[:, 0]
        curve = roc(scores, answers(detector, attacked[:held], streams)[:, 0])
        by_count = []
        for count in (*SEEN, *UNSEEN):
            counts = torch.full((held,), count, device=images.device)
            again = search_pixels(model, clean, counts, streams.derive(f"search {count}"), self.tries)
            by_count.append([float(count), area_under(roc(scores, answers(detector, again, streams)[:, 0]))])
        report = {"roc": curve, "auc": torch.tensor(area_under(curve)), "auc_by_count": torch.tensor(by_count)}
        return packed(net) | report | calibrate(scores, self.false_positive_rate)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model that rejects."""
        channels = learned["net.0.weight"].shape[1] // 2
        return Detecting(model, _Detector(unpacked(self._network(channels), learned)).score, learned, 2)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The joint loss of class and rejection; and the bare model, whose attack may go undetected."""
        return {"defended": self.protect(model, learned), "bare": model}

    @staticmethod
    def _network(channels: int) -> Callable[[], nn.Module]:
        return lambda: conv_net(2 * channels, 1, strides=(1, 2, 2, 2), widths=(32, 64, 128, 128))


def _separation(net: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy on clean images and their attacked versions (the targets), both mirrored at random."""
    mirrored = batch.rng.derive("flip").uniform()[:, None, None, None] < 0.5
    pair = [torch.where(mirrored, part.flip(3), part) for part in (batch.images, batch.targets)]
    logits = net(torch.cat([features(part, batch.rng) for part in pair]))[:, 0]
    attacked = torch.arange(2, device=logits.device).repeat_interleave(len(mirrored))
    return F.binary_cross_entropy_with_logits(logits, attacked.to(logits.dtype))


class _Detector(Classifier):
    """The network's only logit, as a classifier and as a score."""

    num_classes = 1

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Images, rng: Streams) -> Logits:
        inputs = features(images, rng).to(next(self.net.parameters()).dtype)
        return self.net(inputs)  # type: ignore[no-any-return]  # nn.Module

    def score(self, images: Images, logits: Logits, rng: Streams) -> Scores:
        return self(images, rng)[:, 0]


def features(images: Images, rng: Streams) -> Float[Tensor, "n c2 h w"]:
    """The network's input: the images, and their difference from a 3×3 median."""
    return torch.cat([images, images - Median(3).clean(images, rng)], 1)


def search_pixels(model: Classifier, images: Images, counts: Int[Tensor, "n"], rng: Streams, tries: int) -> Images:
    """Images with a few pixels set to corners of the colour cube, chosen by random search against the model.

    Each try redraws one of an image's pixels, and keeps it if the margin of the predicted class shrinks.

    Args:
        model: the model under attack.
        images: shape (n, c, h, w).
        counts: number of changed pixels of each image, at least 1.
        rng: one stream for each image.
        tries: how often a pixel is redrawn.
    """
    channels, height, width = images.shape[1:]
    slots = int(counts.max())
    labels = answers(model, images, rng.derive("clean")).argmax(1)
    places = rng.integers(height * width, slots)
    colours = rng.integers(2, slots, channels).to(images.dtype)
    unused = torch.arange(slots, device=images.device) >= counts[:, None]

    def paint(places: Tensor, colours: Tensor) -> Images:
        where = torch.where(unused, places[:, :1], places)[:, None].expand(-1, channels, -1)
        what = torch.where(unused[:, :, None], colours[:, :1], colours).transpose(1, 2)
        return images.flatten(2).scatter(2, where, what).reshape(images.shape)

    def margin(painted: Images, number: int) -> Scores:
        logits = answers(model, painted, rng.derive(f"try {number}"))
        own = logits.gather(1, labels[:, None])[:, 0]
        return own - logits.scatter(1, labels[:, None], -torch.inf).amax(1)

    best = margin(paint(places, colours), 0)
    for number in range(1, tries + 1):
        redrawn = F.one_hot(rng.integers(counts[:, None], 1)[:, 0], slots).bool()
        other_places = torch.where(redrawn, rng.integers(height * width, slots), places)
        other_colours = torch.where(redrawn[:, :, None], rng.integers(2, slots, channels).to(images.dtype), colours)
        tried = margin(paint(other_places, other_colours), number)
        better = tried < best
        best = torch.where(better, tried, best)
        places = torch.where(better[:, None], other_places, places)
        colours = torch.where(better[:, None, None], other_colours, colours)
    return paint(places, colours)


def roc(clean: Scores, attacked: Float[Tensor, "m"]) -> Float[Tensor, "points 2"]:
    """(False positive rate, true positive rate) at every threshold, from (0, 0) to (1, 1)."""
    levels = torch.unique(torch.cat([clean, attacked])).flip(0)
    rates = torch.stack([(part[None] >= levels[:, None]).float().mean(1) for part in (clean, attacked)], 1)
    return torch.cat([torch.zeros_like(rates[:1]), rates])


def area_under(curve: Float[Tensor, "points 2"]) -> float:
    """The area under a ROC curve: 1 for perfect separation, 0.5 for chance."""
    return float(torch.trapezoid(curve[:, 1].double(), curve[:, 0].double()))
