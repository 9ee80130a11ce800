"""Jedi: high local entropy gives a patch away; it is cut out and filled in.

Tarchoun, Ben Khalifa, Mahjoub, Abu-Ghazaleh, Alouani, "Jedi: entropy-based localization and removal of adversarial
patches" (CVPR 2023, arXiv 2304.10029), without its autoencoder, which completes the mask and needs training.

    H = entropy in bits of the 256 grey levels in a window; windows of three sizes, half a window apart
    limit = patch mean + (1.5 − 2 (patch mean − clean mean) / patch mean + image spread) · patch deviation
    image spread = (mean H of the image − clean mean) / clean deviation
    M = union of the windows with H > limit, without pieces under 0.5 % of the image
    x' = x with M inpainted

The means and deviations are the authors' (one set for each window size). The sizes are 1/100 of the longer side,
rounded up to even and at least 8, then half as much again, then twice. A window counts one pixel more on each side than
its stride allows, as the authors' does; it needs room, so this is for images of 64 pixels and more: below, windows of 8
pixels are a quarter of the image. A single large piece is kept even when small ones are dropped.
The filling is OpenCV's, theirs MATLAB's; the attacker passes it by as if it were the identity (BPDA).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Images, Streams, Transform

from ._inpaint import inpaint
from ._pixels import each, luma, pad_mirrored, refuse_nan
from ._ranges import within
from .dw import drop_small

PATCH_MEAN, PATCH_DEVIATION = (5.32, 6.06, 6.47), (0.32, 0.34, 0.35)
CLEAN_MEAN, CLEAN_DEVIATION = (2.75, 3.19, 3.47), (1.16, 1.13, 1.07)
LEVELS = 256


@dataclass(frozen=True)
class Jedi(Transform):
    """Jedi: inpaints regions of high entropy, as those of an optimised patch.

    Attributes:
        margin: added to the entropy limit, in bits; 0 is the paper's.
        area: share of the image under which a piece is dropped, in [0, 1].
    """

    margin: float = 0.0
    area: float = 0.005

    title = "Jedi"
    paper = "Tarchoun et al. 2023, arXiv 2304.10029"
    note = "without the autoencoder that completes the mask"
    views = ("bpda",)

    def __post_init__(self) -> None:
        within("a margin in bits", self.margin, -8, 8, "0 is the paper's")
        within("an area", self.area, 0, 1, "0.005 is the paper's")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The inpainted images; raises ValueError for NaN."""
        refuse_nan(images, "jedi")
        if not images.numel():
            return images.clone()
        masks = self.masks(images.detach())
        return inpaint(images, masks)

    def masks(self, images: Images) -> Bool[Tensor, "n 1 h w"]:
        """The regions of high entropy."""
        grey = (luma(images) * (LEVELS - 1)).round().to(torch.int64)
        high = torch.zeros_like(grey, dtype=torch.bool)
        for scale, side in enumerate(_sides(max(grey.shape[1:]))):
            high |= self._high(grey, side, scale)
        return each(self._large, high.to(torch.uint8).cpu()).to(images.device).bool()[:, None]

    def _high(self, grey: Tensor, side: int, scale: int) -> Bool[Tensor, "n h w"]:
        """The pixels in windows above the limit at one scale."""
        height, width = grey.shape[1:]
        half, step = side // 2, side // 2
        padded = pad_mirrored(grey, half, side)
        windows = padded.unfold(1, side + 1, step).unfold(2, side + 1, step)
        entropies = _entropy(windows.flatten(3))
        spread = (entropies.mean(2).mean(1) - CLEAN_MEAN[scale]) / CLEAN_DEVIATION[scale]
        base = 1.5 - 2 * (PATCH_MEAN[scale] - CLEAN_MEAN[scale]) / PATCH_MEAN[scale]
        limit = PATCH_MEAN[scale] + (base + spread) * PATCH_DEVIATION[scale] + self.margin
        above = (entropies > limit[:, None, None]).float()[:, None]
        ones = above.new_ones(1, 1, side + 1, side + 1)
        covered = F.conv_transpose2d(above, ones, stride=step)[:, 0] > 0.5
        return covered[:, half : half + height, half : half + width]

    def _large(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return drop_small(mask, self.area)


def _sides(longest: int) -> tuple[int, int, int]:
    """The even window sizes for images with this longer side."""
    small = math.ceil(longest / 100)
    small = max(8, small + small % 2)
    middle = small * 3 // 2
    return small, middle + middle % 2, small * 2


def _entropy(values: Tensor) -> Float[Tensor, "n a b"]:
    """Entropy in bits of the levels along the last axis: log2 of the count minus the mean of c·log2 c over it."""
    count = values.shape[-1]
    histogram = torch.zeros(*values.shape[:-1], LEVELS, device=values.device)
    histogram.scatter_add_(-1, values, torch.ones((), device=values.device).expand(values.shape))
    numbers = torch.arange(count + 1, dtype=torch.float32, device=values.device)
    told = torch.special.xlogy(numbers, numbers) / math.log(2)
    repeated: Tensor = told[histogram.to(torch.int64)].sum(-1)
    return math.log2(count) - repeated / count
