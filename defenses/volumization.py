"""Volumization: a 3D network classifies every slice of the image, and the slices decide together.

Ghebrechristos and Alaghband, "Immunizing Image Classifiers Against Localized Adversary Attacks" (2024).

    volume   x = slices x₁ … x_Z of p×p pixels, ranked by a measure (`_measures`, `_volume`)
    network  the bare one with a third axis in its kernels (`_inflate`): logits y₁ … y_Z, one set per slice
    training PAL = Σ_n cross-entropy(y_n, label), with images ordered from simple to complex (`_curriculum`)
    answer   the mean probability of the slices

Where the paper is silent or contradicts itself (by parameter):

- aggregate: the paper does not say how slices decide. With the mean probability, a slice moves the answer by at most
  1/Z. PAL itself implies the mean log probability, with which a single slice has a veto. `vote` and `trimmed-mean`
  limit the influence of a slice too.
- depth: kernels are k×k×Z in the text, but the numbers of weights in Table 2 are those of depth 3. "z" is the text.
- size: half of the image up to 32 pixels, otherwise a quarter: 16 pixels for CIFAR (as in section 4.2) and 16 slices
  for ImageNet (as in Table 10). The paper gives both for everything, which is impossible.
- reduction: the sum in PAL multiplies the learning rate by Z; the mean does not.
- bins: on small slices, mutual information with 256 levels is almost pure bias (noise shares 6 of 7 bits); the default
  is 16 levels.
- curriculum: the order inside a minibatch, as printed (`batch`), has no effect. `macro` orders across steps, but
  minibatches that are all simple or all complex have different statistics: on `photos` it costs 9 points of clean
  accuracy (three seeds, 85.5 instead of 94.2 %).

The order is recomputed for each image, also under attack. It is piecewise constant, so the gradient of the slices is
exact almost everywhere. Votes have no gradient: their attacker watches them and follows the mean log probability of the
slices that still vote for the answer. Of 13 CIFAR-10 images behind the preset `certified`, ten pixels by GreedyFool
leave none this way and 3 by the mean probability. A few extreme pixels can change the order, which no gradient shows,
so score-based attacks should be run as well.

With kernels deeper than 1, every slice sees all others after a few layers, and a patch in one slice affects all
answers: then the paper's locality argument does not hold. With depth=1, slices are independent, their order has no
effect (and is not computed), and with aggregate=vote an attack on m slices changes at most m votes. That is certified
for each place, as by `derandomized-smoothing`.
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

from ._ablation import certified
from ._curriculum import Curriculum, Syllabus
from ._examples import packed, seed_of, unpacked
from ._inflate import Inflation, inflate
from ._measures import Measure
from ._ranges import within
from ._slices import Aggregate, Volumized, pal, votes
from ._substitute import SubstituteGradient
from ._training import Trained, reset
from ._volume import Ranking, Slicing, Volumizer


@dataclass(frozen=True)
class Volumization(Trained, CertifiedDefense):
    """Volumization: a 3D network classifies every slice of the image, and the slices decide together.

    Attributes:
        measure: the measure that ranks slices, and images in the curriculum.
        size: side of a slice in pixels; None for half of the image up to 32 pixels, otherwise a quarter.
        pad: what to do if slices do not divide the image: refuse it (`none`), or extend it by its reflection.
        order: slices by ascending or descending score; as controls, in reading order (`raster`) or at random.
        convention: `distance` negates similarities and puts the reference first; `raw` does neither.
        reference: the slice to compare with: min-entropy, max-entropy, or its index from 0.
        bins: number of levels for entropies, a divisor of 256.
        depth: depth of the kernels: 1, 3, another odd number, or `z` for the number of slices.
        inflation: initial kernels: the bare ones in the `central` layer, or their `mean` in every layer.
        reduction: whether PAL is the mean or the sum over the slices.
        aggregate: how the slices decide.
        curriculum: how training images are ordered.
        macro: minibatches per macro-batch.
        easiest: share of the images that `pacing` starts with, in (0, 1].
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
    note = "kernels deeper than 1 let every slice see all others; only depth=1 keeps them separate"
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
        within("a size of slices in pixels", self.size, 1, math.inf, "omit it for the default")
        within("macro", self.macro, 1, math.inf, "16 is the default")
        within("easiest", self.easiest, 1e-6, 1, "0.33 is the default")
        within("the index of a reference", _number(self.reference), 0, math.inf, "the first slice is 0")
        within("a depth", _number(self.depth), 1, math.inf, "3 is the default, z means the number of slices")
        if self.bins < 1 or 256 % self.bins:
            raise ValueError(f"Expected bins that divide 256, such as 256 or 16, but got {self.bins}.")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError if slices do not divide the image, or the reference is not among them."""
        rows, columns = self._slicing(*image_shape[1:]).grid(*image_shape[1:])
        slices = rows * columns
        if isinstance(self.reference, int) and self.reference >= slices:
            raise InputError(f"Expected a reference among slices 0 … {slices - 1}, but got {self.reference}.")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The weights of the 3D network, and the shape of its images."""
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
        """The 3D network with the joint decision of its slices."""
        return self._learned(model, learned)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The defended model; votes with the gradient of the slices that support the answer."""
        defended = self._learned(model, learned)
        return {"defended": SubstituteGradient(defended, defended.supporting) if self.aggregate == "vote" else defended}

    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which images keep their label under patches or pixels within `budget`; only for depth=1 with votes."""
        if self.depth != 1 or self.aggregate != "vote":
            return torch.zeros_like(labels, dtype=torch.bool)
        network = self._learned(model, learned)
        rng = Streams.of(0, torch.arange(len(images), device=images.device))

        def work(part: slice) -> Tensor:
            return votes(network.slices(images[part], rng[part]))

        with torch.no_grad():
            votes_of_all = in_pieces(work, len(images), piece_of(images.shape))
        reach = network.volumizer.slicing.reach(images.shape[2], images.shape[3]).to(images.device)
        return certified(votes_of_all, labels, reach, budget)

    def _slicing(self, height: int, width: int) -> Slicing:
        shorter = min(height, width)
        return Slicing(self.size or math.ceil(shorter / (2 if shorter <= 32 else 4)), self.pad)

    def _volumized(self, model: Classifier, shape: tuple[int, int, int]) -> Volumized:
        """The 3D network before training."""
        channels, height, width = shape
        slicing = self._slicing(height, width)
        rows, columns = slicing.grid(height, width)
        depth = rows * columns if self.depth == "z" else self.depth
        net = inflate(model, (channels, rows * columns, slicing.size), depth, self.inflation)
        return Volumized(model, net, Volumizer(slicing, self._order(depth)), self.aggregate, depth)

    def _order(self, depth: int) -> Ranking | Literal["raster", "random"]:
        if depth == 1 or self.order == "raster":
            return "raster"
        if self.order == "random":
            return "random"
        return Ranking(self.measure, self.bins, self.reference, self.convention, self.order == "desc")

    def _learned(self, model: Classifier, learned: Artifact) -> Volumized:
        channels, height, width = (int(side) for side in learned["shape"])
        return unpacked(lambda: self._volumized(model, (channels, height, width)), learned)


def _number(value: int | str) -> int | None:
    return value if isinstance(value, int) else None
