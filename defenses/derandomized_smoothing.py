"""De-randomized smoothing: many small parts of an image vote, and a patch affects only a few of them.

Levine and Feizi, "(De)Randomized Smoothing for Certifiable Defense against Patch Attacks" (NeurIPS 2020,
arXiv 2002.10733).

    n_c(x) = number of parts (bands of columns, or blocks, at every position, wrapping around) with p_c(part) ≥ θ
    answer = argmax n_c(x)
    certificate: for every place of the patch, with R the parts that see it, and every c ≠ y
           n_y − |{r ∈ R: r votes y}|  >  n_c + |{r ∈ R: r does not vote c}|

The paper compares n_y − n_c with 2Δ, where Δ is the number of parts that a patch affects; looking at how those parts
vote certifies at least as much. Ties count as lost.

Departures: the paper's network sees the whole image with everything outside the part marked as missing; ours sees only
the part, so it does not know its position, and an image costs an eighth of the operations. It is a small network of its
own, trained on the training images; the defended model is not used at all.

The votes have no gradient. An adaptive attacker watches them and follows the mean log probability of the parts that
still vote for the answer: those that have changed their vote need no more. Of 13 CIFAR-10 images, ten pixels by
GreedyFool leave 4 this way and 11 by the mean probability; Sparse-RS with 150 queries leaves 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from bench.contracts import Artifact, Images, InputError, Labels, Streams

from ._ablation import Ablations, Parts, Voted
from ._examples import conv_net
from ._ranges import within


@dataclass(frozen=True)
class DerandomizedSmoothing(Voted):
    """De-randomized smoothing: parts of the image vote; certified against patches.

    Attributes:
        parts: bands of columns, or square blocks (one at each pixel, so as many passes as the image has pixels).
        size: width of a band or side of a block, in pixels; None for 1/8 or 3/8 of the image.
        threshold: θ, the probability from which a part votes for a class, in (0, 1].
    """

    parts: Literal["column", "block"] = "column"
    size: int | None = None
    threshold: float = 0.3
    training_images: int = 4000
    epochs: int = 30

    title = "De-randomized smoothing"
    paper = "Levine & Feizi 2020, arXiv 2002.10733"
    presets = {
        "quick": {"epochs": 10},
        "block": {"parts": "block"},
        "paper": {"parts": "column", "size": 4, "training_images": 50_000, "epochs": 350},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        within("a size in pixels", self.size, 1, math.inf, "omit it for the default")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError if a part is as large as the image."""
        _, height, width = image_shape
        limit = width if self.parts == "column" else min(height, width)
        if self.size is not None and self.size >= limit > 1:
            raise InputError(
                f"Expected parts smaller than the image ({height}×{width}), but got size {self.size}; omit it for the "
                "default."
            )

    def fixed(self, shape: tuple[int, int, int], rng: Streams) -> Artifact:
        """The sizes of the image and of a part."""
        _, height, width = shape
        if self.parts == "column":
            tall, wide = height, self.size or math.ceil(width / 8)
        else:
            tall = wide = self.size or math.ceil(3 * min(height, width) / 8)
        return {"windows": torch.tensor([height, width, min(tall, height), min(wide, width)])}

    def ablations(self, learned: Artifact) -> Windows:
        """A part at every position."""
        return Windows(*learned["windows"].tolist())

    def network(self, known: Artifact, num_classes: int) -> nn.Module:
        """A network that sees only the part."""
        return conv_net(int(known["channels"]), num_classes, strides=(1, 2, 2), widths=(32, 64, 128))


class Windows(Ablations):
    """A tall×wide window at every position, wrapping around the border."""

    def __init__(self, height: int, width: int, tall: int, wide: int) -> None:
        self.height, self.width, self.tall, self.wide = height, width, tall, wide
        self.size = (tall, wide)
        self.columns = width if wide < width else 1
        self.count = (height if tall < height else 1) * self.columns

    def apply(self, images: Images, which: Labels) -> Parts:
        """The windows themselves, shape (n, c, tall, wide)."""
        rows, columns = self._places(which)
        channels = torch.arange(images.shape[1], device=images.device)
        every = torch.arange(len(images), device=images.device)
        return images[
            every[:, None, None, None], channels[:, None, None], rows[:, None, :, None], columns[:, None, None, :]
        ]

    def retains(self) -> Bool[Tensor, "ablations h w"]:
        """The pixels of each window."""
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
