"""Volumization: a 3D network classifies every slice of the image, and the slices decide together.

Ghebrechristos and Alaghband, "Immunizing Image Classifiers Against Localized Adversary Attacks" (2024).

    volume   x = slices x₁ … x_Z of p×p pixels, ranked by a measure (`_measures`, `_volume`)
    network  the bare one with kernels of a third axis (`_inflate`): logits y₁ … y_Z, one set for each slice
    training PAL = Σ_n cross-entropy(y_n, label), with images ordered from simple to complex (`_curriculum`)
    answer   the mean probability of the slices

Where the paper is silent or contradicts itself (the names are parameters):

- aggregate: how slices decide is not said. By the mean probability a slice moves the answer by 1/Z at most. PAL itself
  implies the mean log-probability, by which one slice can veto. `vote` and `trimmed-mean` limit a slice, too.
- depth: kernels are k×k×Z in the text, but the numbers of weights in Table 2 are those of depth 3. "z" is the text.
- size: half of the image up to 32 pixels, else a quarter: 16 pixels for CIFAR (as in section 4.2), and 16 slices for
  ImageNet (as in Table 10), which the paper gives for everything and which exclude each other.
- reduction: the sum in PAL multiplies the learning rate by Z; the mean does not.
- bins: on small slices the mutual information of 256 levels is almost all bias (noise shares 6 of 7 bits); 16 levels
  are the default.
- curriculum: ordering inside a minibatch, as printed (`batch`), changes nothing. `macro` orders across steps, but
  minibatches that are all simple or all complex have other statistics: on photos it costs 9 points of clean accuracy
  (three seeds, 85.5 for 94.2 %).

The order is recomputed for each image, also while an attack differentiates it: it is piecewise constant, so the
gradient of the slices is exact almost everywhere. Votes have none; their attacker follows the probabilities instead.
A few extreme pixels can turn the order, which no gradient shows: attacks that only ask for scores belong beside it.

With kernels deeper than 1, every slice sees every other one after a few layers, and a patch in one slice reaches all
answers: the paper's argument from locality does not hold then. With depth=1 the slices are independent, their order
has no effect (and is not computed), and with aggregate=vote an attack that reaches m of the slices moves m votes at
most. That is proved for each place, as by `derandomized-smoothing`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from bench.contracts import (
    Artifact,
    Budget,
    CertifiedDefense,
    Classifier,
    Examples,
    Images,
    InputError,
    Labels,
    Streams,
)
from bench.memory import in_pieces, piece_of
from bench.training import Batch

from ._ablation import proven
from ._curriculum import Curriculum, Syllabus
from ._examples import packed, seed_of, unpacked
from ._inflate import Inflation, inflate
from ._measures import Measure
from ._ranges import within
from ._slices import Aggregate, Volumized, pal, votes
from ._training import Trained, reset
from ._volume import Ranking, Slicing, Volumizer


@dataclass(frozen=True)
class Volumization(Trained, CertifiedDefense):
    """Volumization: a 3D network classifies every slice of the image, and the slices decide together.

    Attributes:
        measure: what ranks the slices, and the images of the curriculum.
        size: side of a slice in pixels; None for half of the image up to 32 pixels, else a quarter.
        pad: what to do where slices do not divide the image: refuse it, or extend it by its reflection.
        order: slices by ascending or descending score; in reading order or at random as controls.
        convention: `distance` counts similarities negatively and puts the reference first; `raw` does neither.
        reference: the slice that the others are compared with: min-entropy, max-entropy, or its place from 0.
        bins: levels that entropies count values in, a divisor of 256.
        depth: of the kernels: 1, 3, another odd number, or `z` for the number of slices.
        inflation: what the kernels start from: the bare ones in the `central` layer, or their `mean` in every one.
        reduction: PAL is the mean or the sum over the slices.
        aggregate: how the slices decide.
        curriculum: how training images are ordered.
        macro: minibatches in a macro-batch.
        easiest: share of the images that `pacing` begins with, in (0, 1].
    """

    measure: Measure = "mutual-information"
    size: int | None = None
    pad: Literal["none", "reflect"] = "none"
    order: Literal["asc", "desc", "raster", "random"] = "asc"
    convention: Literal["distance", "raw"] = "distance"
    reference: Literal["min-entropy", "max-entropy"] | int = "min-entropy"
    bins: int = 16
    depth: int | Literal["z"] = 3
    inflation: Inflation = "central"
    reduction: Literal["mean", "sum"] = "mean"
    aggregate: Aggregate = "mean-prob"
    curriculum: Syllabus = "batch"
    macro: int = 16
    easiest: float = 0.33

    title = "Volumization"
    paper = "Ghebrechristos & Alaghband 2024"
    note = "kernels deeper than 1 let every slice see every other; only depth=1 keeps them apart"
    presets = {
        "quick": {"epochs": 2},
        "paper": {
            "start": "scratch",
            "epochs": 300,
            "training_images": 50_000,
            "bins": 256,
            "reduction": "sum",
        },
        "cifar-8": {"size": 8},
        "cifar-16": {"size": 16},
        "imagenet64-16": {"size": 16},
        "imagenet224-56": {"size": 56},
        "certified": {"depth": 1, "aggregate": "vote"},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        within("a size of slices in pixels", self.size, 1, math.inf, "leave it out for the default of the image size")
        within("macro", self.macro, 1, math.inf, "16 is the default")
        within("easiest", self.easiest, 1e-6, 1, "0.33 is the default")
        within("the place of a reference", _number(self.reference), 0, math.inf, "the first one is 0")
        within("a depth", _number(self.depth), 1, math.inf, "3 is the default, z the number of slices")
        if self.bins < 1 or 256 % self.bins:
            raise ValueError(f"Expected bins that divide 256, such as 256 or 16, but got {self.bins}.")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where slices do not divide the image, or there are too few of them."""
        rows, columns = self._slicing(*image_shape[1:]).grid(*image_shape[1:])
        slices = rows * columns
        if isinstance(self.reference, int) and self.reference >= slices:
            raise InputError(f"Expected a reference among slices 0 … {slices - 1}, but got {self.reference}.")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The weights of the 3D network, and the shape of the images that it is for."""
        images, labels, streams = self.examples(training, rng)
        shape = images.shape[1], images.shape[2], images.shape[3]
        network = self._volumized(model, shape)
        if self.start == "scratch":
            network = cast("Volumized", reset(network, seed_of(streams.derive("weights"))))
        ranking = Ranking(self.measure, self.bins, convention=self.convention)
        syllabus = Curriculum(self.curriculum, ranking, images, self.batch_size, self.epochs, self.macro, self.easiest)

        def loss(trained: nn.Module, batch: Batch) -> Tensor:
            return pal(network.slices(batch.images, batch.rng), batch.targets, self.reduction)

        self.train(network, images, labels, training, streams, loss=loss, batches=syllabus.batches)
        return packed(network) | {"shape": torch.tensor(shape)}

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The decision of the slices."""
        return self._learned(model, learned)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The defended model; instead of votes, the mean of the probabilities and that of their logarithms."""
        if self.aggregate != "vote":
            return {"defended": self.protect(model, learned)}
        soft: tuple[Aggregate, Aggregate] = ("mean-prob", "mean-logprob")
        return {rule: self._learned(model, learned, rule) for rule in soft}

    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which images no patch, and no few pixels, within `budget` can turn; none but with depth=1 and votes."""
        if self.depth != 1 or self.aggregate != "vote":
            return torch.zeros_like(labels, dtype=torch.bool)
        network = self._learned(model, learned)
        rng = Streams.of(0, torch.arange(len(images), device=images.device))

        def voted(part: slice) -> Tensor:
            return votes(network.slices(images[part], rng[part]))

        with torch.no_grad():
            every = in_pieces(voted, len(images), piece_of(images.shape))
        reach = network.volumizer.slicing.reach(images.shape[2], images.shape[3]).to(images.device)
        return proven(every, labels, reach, budget)

    def _slicing(self, height: int, width: int) -> Slicing:
        shorter = min(height, width)
        return Slicing(self.size or math.ceil(shorter / (2 if shorter <= 32 else 4)), self.pad)

    def _volumized(self, model: Classifier, shape: tuple[int, int, int], rule: Aggregate | None = None) -> Volumized:
        """The 3D network as it begins."""
        channels, height, width = shape
        slicing = self._slicing(height, width)
        rows, columns = slicing.grid(height, width)
        depth = rows * columns if self.depth == "z" else self.depth
        net = inflate(model, (channels, rows * columns, slicing.size), depth, self.inflation)
        return Volumized(model, net, Volumizer(slicing, self._order(depth)), rule or self.aggregate, depth)

    def _order(self, depth: int) -> Ranking | Literal["raster", "random"]:
        if depth == 1 or self.order == "raster":
            return "raster"
        if self.order == "random":
            return "random"
        return Ranking(self.measure, self.bins, self.reference, self.convention, self.order == "desc")

    def _learned(self, model: Classifier, learned: Artifact, rule: Aggregate | None = None) -> Volumized:
        channels, height, width = (int(side) for side in learned["shape"])
        return unpacked(lambda: self._volumized(model, (channels, height, width), rule), learned)


def _number(value: int | str) -> int | None:
    return value if isinstance(value, int) else None
