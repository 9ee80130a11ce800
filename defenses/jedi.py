"""Jedi: localises patches by their high local entropy, and inpaints them.

Tarchoun, Ben Khalifa, Mahjoub, Abu-Ghazaleh, Alouani, "Jedi: entropy-based localization and removal of adversarial
patches" (CVPR 2023, arXiv 2304.10029), without the autoencoder that completes the mask, which needs training.

    H = entropy in bits of the 256 grey levels in a window; windows of three sizes, half a window apart
    limit = patch mean + (1.5 − 2 (patch mean − clean mean) / patch mean + image spread) · patch deviation
    image spread = (mean H of the image − clean mean) / clean deviation
    M = union of the windows with H > limit, without pieces smaller than 0.5 % of the image
    x' = x with M inpainted

Means and deviations are the authors', one pair per window size. The sizes are 1/100 of the longer side, rounded up to
even and at least 8; one and a half times that; and twice that. As in the authors' code, windows are one pixel wider
than twice their stride. This is for images of 64 pixels and more: in smaller ones, a window of 8 pixels covers a
quarter of a side. We inpaint with OpenCV, the authors with MATLAB. The attacker's gradient is that of the identity
(BPDA).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Images, Streams, Transform

from ._inpaint import inpaint
from ._pixels import for_each, luma, pad_mirrored, refuse_nan
from ._ranges import within
from .dw import drop_small

PATCH_MEAN, PATCH_DEVIATION = (5.32, 6.06, 6.47), (0.32, 0.34, 0.35)
CLEAN_MEAN, CLEAN_DEVIATION = (2.75, 3.19, 3.47), (1.16, 1.13, 1.07)
LEVELS = 256


@dataclass(frozen=True)
class Jedi(Transform):
    """Jedi: inpaints regions of high entropy, such as an optimised patch.

    Attributes:
        margin: bits to add to the entropy limit; 0 is the paper's.
        smallest: share of the image below which a piece is dropped, in [0, 1].
    """

    margin: float = 0.0
    smallest: float = 0.005

    title = "Jedi"
    paper = "Tarchoun et al. 2023, arXiv 2304.10029"
    note = "without the autoencoder that completes the mask"
    views = ("bpda",)

    def __post_init__(self) -> None:
        within("a margin in bits", self.margin, -8, 8, "0 is the paper's")
        within("a smallest piece as a share of the image", self.smallest, 0, 1, "0.005 is the paper's")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The inpainted images; raises ValueError for NaN."""
        refuse_nan(images, "jedi")
        if not images.numel():
            return images.clone()
        return inpaint(images, self.masks(images.detach()))

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The regions that are inpainted."""
        return self.masks(images)[:, 0]

    def masks(self, images: Images) -> Bool[Tensor, "n 1 h w"]:
        """The regions of high entropy."""
        grey = (luma(images) * (LEVELS - 1)).round().to(torch.int64)
        high = torch.zeros_like(grey, dtype=torch.bool)
        for scale, side in enumerate(_sides(max(grey.shape[1:]))):
            high |= self._high(grey, side, scale)
        return (
            for_each(partial(drop_small, smallest=self.smallest), high.to(torch.uint8).cpu())
            .to(images.device)
            .bool()[:, None]
        )

    def _high(self, grey: Tensor, side: int, scale: int) -> Bool[Tensor, "n h w"]:
        """The pixels in windows above the limit, at one scale."""
        height, width = grey.shape[1:]
        half = side // 2  # also the stride
        padded = pad_mirrored(grey, half, side)
        windows = padded.unfold(1, side + 1, half).unfold(2, side + 1, half)
        entropies = _entropy(windows.flatten(3))
        spread = (entropies.mean(2).mean(1) - CLEAN_MEAN[scale]) / CLEAN_DEVIATION[scale]
        base = 1.5 - 2 * (PATCH_MEAN[scale] - CLEAN_MEAN[scale]) / PATCH_MEAN[scale]
        limit = PATCH_MEAN[scale] + (base + spread) * PATCH_DEVIATION[scale] + self.margin
        above = (entropies > limit[:, None, None]).float()[:, None]
        ones = above.new_ones(1, 1, side + 1, side + 1)
        covered = F.conv_transpose2d(above, ones, stride=half)[:, 0] > 0.5
        return covered[:, half : half + height, half : half + width]


def _sides(longest: int) -> tuple[int, int, int]:
    """The even window sizes for images with this longer side."""
    small = math.ceil(longest / 100)
    small = max(8, small + small % 2)
    middle = small * 3 // 2
    return small, middle + middle % 2, small * 2


def _entropy(values: Tensor) -> Float[Tensor, "n a b"]:
    """Entropy in bits of the n levels along the last axis: log₂ n − Σ c log₂ c / n over the counts c of the levels."""
    count = values.shape[-1]
    histogram = torch.zeros(*values.shape[:-1], LEVELS, device=values.device)
    histogram.scatter_add_(-1, values, torch.ones((), device=values.device).expand(values.shape))
    numbers = torch.arange(count + 1, dtype=torch.float32, device=values.device)
    terms = torch.special.xlogy(numbers, numbers) / math.log(2)
    total: Tensor = terms[histogram.to(torch.int64)].sum(-1)
    return math.log2(count) - total / count
