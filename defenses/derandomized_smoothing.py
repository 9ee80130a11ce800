"""De-randomized smoothing: many small parts of an image vote, and a patch reaches only few of them.

Levine and Feizi, "(De)Randomized Smoothing for Certifiable Defense against Patch Attacks" (NeurIPS 2020,
arXiv 2002.10733).

    n_c(x) = number of parts (bands of columns, or blocks, at every position, wrapping around) with p_c(part) ≥ θ
    answer = argmax n_c(x)
    proof: for every place of the patch, with R the parts that see it, and every c ≠ y
           n_y − |{r ∈ R: r votes y}|  >  n_c + |{r ∈ R: r does not vote c}|

The paper compares n_y − n_c with 2Δ, where Δ is how many parts a patch reaches; asking how those parts vote proves at
least as much. Ties count as lost.

Departures: the paper's network sees the whole image with everything outside the part marked as missing; ours sees the
part alone, so it does not know where the part lies, and an image costs an eighth of the operations. It is a small
network of its own, trained on the training images, and the defended model is not asked at all.

The votes have no gradient; an attacker who knows differentiates the mean probability over all parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

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

from ._ablation import Ablations, Parts, Voting, train
from ._examples import conv_net, unpacked
from ._ranges import within


@dataclass(frozen=True)
class DerandomizedSmoothing(CertifiedDefense):
    """De-randomized smoothing: parts of the image vote; certified against patches.

    Attributes:
        parts: bands of columns, or square blocks (one at each pixel: as many passes as the image has pixels).
        size: width of a band, or side of a block, in pixels; None for 1/8 or 3/8 of the image.
        threshold: θ, the probability from which a part votes for a class, in (0, 1].
        training_images: how many training images the network learns from at the most.
        epochs: how often it sees each.
    """

    parts: Literal["column", "block"] = "column"
    size: int | None = None
    threshold: float = 0.3
    training_images: int = 4000
    epochs: int = 30

    title: ClassVar[str] = "De-randomized smoothing"
    paper: ClassVar[str] = "Levine & Feizi 2020, arXiv 2002.10733"
    kind = "certified"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"epochs": 10},
        "block": {"parts": "block"},
        "paper": {"parts": "column", "size": 4, "training_images": 50_000, "epochs": 350},
    }

    def __post_init__(self) -> None:
        within("a size in pixels", self.size, 1, math.inf, "leave it out for the default of the image size")
        within("a threshold", self.threshold, 0.001, 1, "0.3 lets three classes vote at the most")
        within("training_images", self.training_images, 2, math.inf, "the default is 4000")
        within("epochs", self.epochs, 1, math.inf, "the default is 30")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where a part is as large as the image."""
        _, height, width = image_shape
        limit = width if self.parts == "column" else min(height, width)
        if self.size is not None and self.size >= limit > 1:
            raise InputError(
                f"derandomized-smoothing expects parts smaller than the image ({height}×{width}), but size is "
                f"{self.size}; leave it out for the default."
            )

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The weights of the network that classifies parts."""
        shape = self._shape(training)
        make = self._network(shape[0], model.num_classes)
        weights = train(self.windows(shape), make, training, rng, self.training_images, self.epochs, "smoothing")
        return weights | {"shape": torch.tensor(shape)}

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The vote of the parts."""
        return self._voting(model, learned)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The mean probability over all parts; and the bare model, whose attack may carry over."""
        return {"mean": self._voting(model, learned, soft=True), "bare": model}

    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which images no patch, and no few pixels, within `budget` can turn; nothing for other budgets."""
        return self._voting(model, learned).certified(images, labels, budget)

    def windows(self, shape: tuple[int, int, int]) -> Windows:
        """The parts of an image of this shape (c, h, w)."""
        _, height, width = shape
        if self.parts == "column":
            return Windows(height, width, height, self.size or math.ceil(width / 8))
        size = self.size or math.ceil(3 * min(height, width) / 8)
        return Windows(height, width, min(size, height), min(size, width))

    def _voting(self, model: Classifier, learned: Artifact, soft: bool = False) -> Voting:
        channels, height, width = (int(side) for side in learned["shape"])
        net = unpacked(self._network(channels, model.num_classes), learned)
        return Voting(net, self.windows((channels, height, width)), model.num_classes, self.threshold, soft)

    @staticmethod
    def _network(channels: int, classes: int) -> Any:
        return lambda: conv_net(channels, classes, strides=(1, 2, 2), widths=(32, 64, 128))

    @staticmethod
    def _shape(training: Examples) -> tuple[int, int, int]:
        if not len(training.labels):
            raise InputError("derandomized-smoothing trains a network, but the data set has no training images.")
        channels, height, width = training.load(torch.zeros(1, dtype=torch.int64)).shape[1:]
        return channels, height, width


class Windows(Ablations):
    """A tall×wide window at every position; it wraps around the border."""

    def __init__(self, height: int, width: int, tall: int, wide: int) -> None:
        self.height, self.width, self.tall, self.wide = height, width, tall, wide
        self.size = (tall, wide)
        self.columns = width if wide < width else 1
        self.count = (height if tall < height else 1) * self.columns

    def seen(self, images: Images, which: Labels) -> Parts:
        """The windows themselves, shape (n, c, tall, wide)."""
        rows, columns = self._places(which)
        channels = torch.arange(images.shape[1], device=images.device)
        every = torch.arange(len(images), device=images.device)
        return images[
            every[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]

    def retains(self) -> Bool[Tensor, "ablations h w"]:
        """Where the windows lie."""
        which = torch.arange(self.count)
        rows, columns = self._places(which)
        marked = torch.zeros(self.count, self.height, self.width, dtype=torch.bool)
        marked[which[:, None, None], rows[:, :, None], columns[:, None, :]] = True
        return marked

    def _places(self, which: Labels) -> tuple[Tensor, Tensor]:
        down = torch.arange(self.tall, device=which.device)
        right = torch.arange(self.wide, device=which.device)
        rows = (which // self.columns)[:, None] + down
        columns = (which % self.columns)[:, None] + right
        return rows % self.height, columns % self.width
