"""Local gradients smoothing: darkens pixels in regions of strong gradients.

Naseer, Khan, Porikli, "Local Gradients Smoothing: Defense against localized adversarial attacks" (WACV 2019,
arXiv 1807.01216), sections 4 and 5.3.

    m = |∇ luma(x)|,  g = (m − min m) / (max m − min m)          one value per pixel, normalised in each image
    M = union of the window×window tiles, overlapping by `overlap`, whose mean g exceeds `threshold`
    LGS(x) = x · (1 − clip(smoothing · g · M, 0, 1))             the same factor for all channels

What the paper leaves open, and our choice: the gradient is the forward difference of the luma with the border repeated,
so a constant image does not change; M is a union where windows overlap; the last window of a row or column is moved
inwards, so that no strip at the right or bottom escapes. Windows never exceed the image.

The paper's parameters are for 299×299. On clean 32×32 images, its 15×15 windows would select nine tenths of the image,
so the defaults depend on the size: if the shorter side is below 64, a window of 7 with an overlap of 2 and a threshold
of 0.3, otherwise the paper's.

At 224×224 the paper's threshold darkens half of a clean image. On 40 training images (MobileNet V2, 92.5 % undefended)
clean accuracy is 80.0 %, where the paper loses 4.6 points. No other gradient (Sobel 67.5 %, central differences 82.5 %)
and no window scaled by 224/299 (77.5 %) explains that; the threshold does: 0.15 leaves 85.0 %, 0.25 leaves 92.5 % and
still selects 92 % of a patch of 5 %. The preset `imagenet224` has 0.25.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Images, InputError, Streams, Transform

from ._pixels import bounded, luma
from ._ranges import within

SMALL = 64
"""Images with a shorter side below this get the defaults for small images."""

Maps = Float[Tensor, "n h w"]


@dataclass(frozen=True)
class LGS(Transform):
    """Local gradients smoothing: darkens the regions of strong gradients.

    Attributes:
        window: side of the windows in pixels, at least 1; None for 7 or 15, by image size.
        overlap: overlap of neighbouring windows in pixels, 0 .. window − 1; None for 2 or 5, by image size.
        threshold: γ, the mean normalised gradient above which a window is smoothed, at least 0; None for 0.3 or 0.1,
            by image size. From 1 on, nothing changes.
        smoothing: λ, how strongly gradients darken, at least 0. The paper tries 1.5 to 2.3.
    """

    window: int | None = None
    overlap: int | None = None
    threshold: float | None = None
    smoothing: float = 2.3

    title = "LGS"
    paper = "Naseer et al. 2019, arXiv 1807.01216"
    views = ("exact", "bpda")
    straight_through = True
    presets = {
        "cifar": {"window": 7, "overlap": 2, "threshold": 0.3},
        "imagenet224": {"window": 15, "overlap": 5, "threshold": 0.25},
        "paper": {"window": 15, "overlap": 5, "threshold": 0.1},
    }

    def __post_init__(self) -> None:
        within("a window in pixels", self.window, 1, math.inf, "omit it for the default")
        within("an overlap in pixels", self.overlap, 0, math.inf, "with 0, windows are side by side")
        within("a threshold", self.threshold, 0, math.inf, "the paper's is 0.1")
        within("smoothing", self.smoothing, 0, math.inf, "the paper's is 2.3")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError if the overlap is not smaller than the window, for images of this size."""
        window, overlap, _ = self._settings(*image_shape[1:])
        if overlap >= window:
            raise InputError(f"Expected an overlap smaller than the window, but got {overlap} and {window}; set both.")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The darkened images, with an exact gradient except for the clip, which is straight-through.

        On a patch the factor is clipped at 0, where the true gradient is 0 and of no use to an attacker; so the clip
        has the gradient of the identity. The choice of windows has no gradient.
        """
        if not images.numel():
            return images.clone()
        gradients = self._normalised(luma(images))
        strength = self.smoothing * gradients * self._mask(gradients.detach())
        return images * (1 - bounded(strength[:, None]))

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The windows that are darkened."""
        return self._mask(self._normalised(luma(images))) > 0

    def _settings(self, height: int, width: int) -> tuple[int, int, float]:
        small = min(height, width) < SMALL
        window = self.window if self.window is not None else (7 if small else 15)
        overlap = self.overlap if self.overlap is not None else (2 if small else 5)
        threshold = self.threshold if self.threshold is not None else (0.3 if small else 0.1)
        return window, overlap, threshold

    def _normalised(self, luma: Maps) -> Maps:
        """|∇ luma| scaled to [0, 1] in each image; 0 everywhere in a constant image."""
        across = F.pad(luma[..., 1:] - luma[..., :-1], (0, 1))
        down = F.pad(luma[..., 1:, :] - luma[..., :-1, :], (0, 0, 0, 1))
        squared = across.square() + down.square()
        flat = squared == 0
        # The slope of the root is infinite at 0, which would make gradients of flat regions NaN.
        length = squared.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)
        low, high = length.amin((1, 2), keepdim=True), length.amax((1, 2), keepdim=True)
        spread = torch.where(high > low, high - low, 1)
        return (length - low) / spread

    def _mask(self, gradients: Maps) -> Maps:
        """1 in windows whose mean gradient exceeds the threshold, 0 elsewhere."""
        height, width = gradients.shape[1:]
        window, overlap, threshold = self._settings(height, width)
        tall, wide = min(window, height), min(window, width)
        step = max(1, window - overlap)
        means = _window_means(_window_means(gradients, wide, step).mT, tall, step)
        kept = (means > threshold).to(gradients.dtype)
        rows = _cover(height, tall, step, gradients)
        columns = _cover(width, wide, step, gradients)
        return (columns.T @ kept @ rows).clamp_max(1).mT


def _window_means(values: Float[Tensor, "n a b"], window: int, step: int) -> Float[Tensor, "n a windows"]:
    """Means over windows along the last axis."""
    regular = F.avg_pool2d(values, (1, window), (1, step))
    if (values.shape[-1] - window) % step == 0:
        return regular
    return torch.cat([regular, values[..., -window:].mean(-1, keepdim=True)], -1)


def _cover(length: int, window: int, step: int, like: Tensor) -> Float[Tensor, "windows length"]:
    """Row i is 1 inside window i; there is one every `step` pixels, and one that ends with the last pixel."""
    first = sorted({*range(0, length - window + 1, step), length - window})
    starts = torch.tensor(first, device=like.device)[:, None]
    places = torch.arange(length, device=like.device)
    return ((places >= starts) & (places < starts + window)).to(like.dtype)
