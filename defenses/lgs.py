"""Local gradients smoothing: darkens the pixels where strong gradients stand close together.

Naseer, Khan, Porikli, "Local Gradients Smoothing: Defense against localized adversarial attacks" (WACV 2019,
arXiv 1807.01216), sections 4 and 5.3.

    m = |∇ luma(x)|,  g = (m − min m) / (max m − min m)          one value a pixel, normalised in each image
    M = union of the window×window tiles, `overlap` apart, whose mean g exceeds `threshold`
    LGS(x) = x · (1 − clip(smoothing · g · M, 0, 1))             the same factor for all channels

What the paper leaves open, and what is done here: the gradient is the forward difference of the luma with the
border repeated, so a constant image stays as it is; overlapping windows are united; the last window of a row or
column is moved inwards, so that no strip at the right or bottom escapes. Windows never exceed the image.

The paper's setting is for 299×299. On a 32×32 image its 15×15 windows cover nine tenths of a clean image, so
parameters that are left out depend on the size: below a short side of 64 a window of 7 with an overlap of 2 and a
threshold of 0.3, otherwise the paper's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import BPDA, Images, InputError, Streams, Transform

from ._pixels import luma
from ._ranges import within

SMALL = 64
"""Images with a shorter side get the settings for small images."""

Maps = Float[Tensor, "n h w"]


@dataclass(frozen=True)
class LGS(Transform):
    """Local gradients smoothing: darkens the regions of strong gradients.

    Attributes:
        window: side of the windows in pixels, at least 1; by image size where None (7 or 15).
        overlap: by how many pixels neighbouring windows overlap, 0 .. window − 1; by image size where None (2 or 5).
        threshold: γ, the mean normalised gradient in [0, 1] above which a window is smoothed; by image size where
            None (0.3 or 0.1). From 1 on nothing changes.
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
        "paper": {"window": 15, "overlap": 5, "threshold": 0.1},
    }

    def __post_init__(self) -> None:
        within("a window in pixels", self.window, 1, math.inf, "leave it out for the default of the image size")
        within("an overlap in pixels", self.overlap, 0, math.inf, "0 sets windows side by side")
        within("a threshold", self.threshold, 0, math.inf, "the paper's is 0.1")
        within("smoothing", self.smoothing, 0, math.inf, "the paper's is 2.3")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where the window is no longer than the overlap, once both are known."""
        window, overlap, _ = self._settings(*image_shape[1:])
        if overlap >= window:
            raise InputError(
                f"lgs expects an overlap smaller than the window, but they are {overlap} and {window}; set both."
            )

    def clean(self, images: Images, rng: Streams) -> Images:
        """The darkened images; also the exact gradient, but straight through the clip.

        On a patch the factor is clipped at 0, where the true gradient is exactly 0 and tells an attacker nothing;
        there the gradient passes as if it were not clipped. The choice of windows passes no gradient.
        """
        if not images.numel():
            return images.clone()
        gradients = self._normalised(luma(images))
        strength = self.smoothing * gradients * self._mask(gradients.detach())
        clipped: Maps = BPDA.apply(strength, lambda values: values.clamp(0, 1), lambda values, gradient: gradient)
        return images * (1 - clipped)[:, None]

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
        # The root's slope at 0 is infinite and would turn gradients of flat regions into NaN.
        length = squared.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)
        low, high = length.amin((1, 2), keepdim=True), length.amax((1, 2), keepdim=True)
        spread = torch.where(high > low, high - low, 1)
        return (length - low) / spread

    def _mask(self, gradients: Maps) -> Maps:
        """1 in the windows whose mean gradient exceeds the threshold, else 0."""
        height, width = gradients.shape[1:]
        window, overlap, threshold = self._settings(height, width)
        tall, wide = min(window, height), min(window, width)
        step = max(1, window - overlap)
        means = _window_means(_window_means(gradients, wide, step).mT, tall, step)
        kept = (means > threshold).to(gradients.dtype)
        rows = _cover(height, tall, step, gradients)
        columns = _cover(width, wide, step, gradients)
        return (columns.T @ kept @ rows).clamp_max(1).mT


def _starts(length: int, window: int, step: int) -> list[int]:
    """Where windows start: every `step` pixels, and one that ends with the last pixel."""
    return sorted({*range(0, length - window + 1, step), length - window})


def _window_means(values: Float[Tensor, "n a b"], window: int, step: int) -> Float[Tensor, "n a windows"]:
    """Means over windows along the last axis."""
    regular = F.avg_pool2d(values, (1, window), (1, step))
    if (values.shape[-1] - window) % step == 0:
        return regular
    return torch.cat([regular, values[..., -window:].mean(-1, keepdim=True)], -1)


def _cover(length: int, window: int, step: int, like: Tensor) -> Float[Tensor, "windows length"]:
    """Row i is 1 where window i lies."""
    starts = torch.tensor(_starts(length, window, step), device=like.device)[:, None]
    places = torch.arange(length, device=like.device)
    return ((places >= starts) & (places < starts + window)).to(like.dtype)
