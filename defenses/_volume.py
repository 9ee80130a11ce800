"""Images as volumes: cut into slices, ranked by a measure, stacked along the depth.

Ghebrechristos and Alaghband, "Immunizing Image Classifiers Against Localized Adversary Attacks" (2024), sections 3.1
and 3.3. Where the paper and the authors' code leave a choice or contradict each other:

- Incomplete slices at the border, which the code drops against equation 3, are an error or filled by reflection.
- The reference is the slice of the smallest entropy, as in the code; among equals the first in reading order.
- Mutual information, SSIM and PSNR grow with similarity, but the paper ranks them as distances. The convention
  "distance" negates them, so that ascending means nearest first, and always puts the reference first; "raw" is
  equation 12 as printed.
- Scores are not rounded, and ties stay in reading order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Images, InputError, Streams

from ._measures import SIMILARITIES, STANDALONE, Measure, Scores, score

Slices = Float[Tensor, "n z c p p"]
Volume = Float[Tensor, "n c z p p"]
Order = Int[Tensor, "n z"]
"""For each image a permutation of its slices: the slice at each depth."""


@dataclass(frozen=True)
class Slicing:
    """Square slices of an image, side by side, in reading order.

    Attributes:
        size: side of a slice in pixels.
        pad: what to do with an image that the slices do not divide: refuse it ("none"), or extend it by its reflection
            at the bottom and on the right.
    """

    size: int
    pad: Literal["none", "reflect"] = "none"

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Number of slices from top to bottom and from left to right.

        Raises InputError if an image of this size cannot be cut like this.
        """
        down, right = -height % self.size, -width % self.size
        if self.pad == "none" and (down or right):
            common = math.gcd(height, width)
            fitting = [str(size) for size in range(1, common + 1) if common % size == 0]
            raise InputError(
                f"Expected slices that divide the image ({height}×{width}), but size is {self.size}. Choose one of "
                f"{', '.join(fitting)}, or pad=reflect."
            )
        if down >= height or right >= width:
            raise InputError(
                f"Expected slices of at most {min(height, width)} pixels for {height}×{width} images, but size is "
                f"{self.size}."
            )
        return (height + down) // self.size, (width + right) // self.size

    def cut(self, images: Images) -> Slices:
        """The slices, in reading order."""
        height, width = images.shape[2:]
        rows, columns = self.grid(height, width)
        if (rows * self.size, columns * self.size) != (height, width):
            images = F.pad(images, (0, columns * self.size - width, 0, rows * self.size - height), mode="reflect")
        tiles = images.reshape(*images.shape[:2], rows, self.size, columns, self.size)
        return tiles.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)

    def reach(self, height: int, width: int) -> Bool[Tensor, "z h w"]:
        """Which pixels of an image each slice depends on."""
        pixels = torch.arange(height * width, dtype=torch.float64).reshape(1, 1, height, width)
        seen = self.cut(pixels).flatten(2)[0].long()
        reached = torch.zeros(len(seen), height * width, dtype=torch.bool).scatter(1, seen, True)
        return reached.reshape(len(seen), height, width)


@dataclass(frozen=True)
class Ranking:
    """An order of slices or of images, from simple to complex or from near to far.

    Attributes:
        measure: the measure to rank by.
        bins: number of levels for histograms.
        reference: the slice to compare with: that of the smallest or largest entropy, or its index in reading order.
        convention: "distance" negates similarities and puts the reference first; "raw" ranks the measure itself.
        descending: whether the largest score comes first.
    """

    measure: Measure
    bins: int = 256
    reference: Literal["min-entropy", "max-entropy"] | int = "min-entropy"
    convention: Literal["distance", "raw"] = "distance"
    descending: bool = False

    def order(self, slices: Float[Tensor, "n z v"]) -> Order:
        """The ranked indices of the slices; without a gradient."""
        with torch.no_grad():
            return self.scores(slices).argsort(dim=1, descending=self.descending, stable=True)

    def scores(self, slices: Float[Tensor, "n z v"]) -> Scores:
        """The scores by which slices are ranked."""
        if self.measure in STANDALONE:
            return score(self.measure, slices, None, self.bins)
        index = self._reference(slices)[:, None]
        reference = slices.take_along_dim(index[..., None], 1)
        scores = score(self.measure, slices, reference, self.bins)
        if self.convention == "raw":
            return scores
        distances = -scores if self.measure in SIMILARITIES else scores
        return distances.scatter(1, index, torch.inf if self.descending else -torch.inf)

    def _reference(self, slices: Float[Tensor, "n z v"]) -> Int[Tensor, "n"]:
        if isinstance(self.reference, int):
            return torch.full((len(slices),), self.reference, device=slices.device)
        entropies = score("entropy", slices, None, self.bins)
        return entropies.argmin(1) if self.reference == "min-entropy" else entropies.argmax(1)


@dataclass(frozen=True)
class Volumizer:
    """Images -> volumes of their slices.

    Attributes:
        slicing: how images are cut.
        order: how slices are stacked: ranked, or as controls in reading order ("raster") or at random.
    """

    slicing: Slicing
    order: Ranking | Literal["raster", "random"]

    def volume(self, images: Images, rng: Streams) -> Volume:
        """The stacked slices of each image."""
        slices = self.slicing.cut(images)
        if self.order == "raster":
            return slices.transpose(1, 2)
        if self.order == "random":
            return stack(slices, rng.derive("order").permutations(slices.shape[1]))
        return stack(slices, self.order.order(slices.flatten(2)))


def stack(slices: Slices, order: Order) -> Volume:
    """The slices stacked in this order; gradients flow back to each slice."""
    return slices.take_along_dim(order[:, :, None, None, None], 1).transpose(1, 2)
