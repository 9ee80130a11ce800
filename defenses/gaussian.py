"""Gaussian blur.

Naseer et al. (arXiv 1807.01216) compare with a window of 5 but do not give its σ; here it is 1 pixel.

    y = x * k,  k(i, j) ∝ exp(−(i² + j²) / 2σ²) on a size×size window, Σ k = 1, borders mirrored
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.contracts import Images, InputError, Streams, Transform

from ._pixels import bounded, pad_mirrored
from ._ranges import within


@dataclass(frozen=True)
class Gaussian(Transform):
    """Gaussian blur: fades small structures.

    Attributes:
        size: side of the window in pixels, odd, 1 to 31.
        sigma: standard deviation in pixels, above 0.
    """

    size: int = 5
    sigma: float = 1.0

    title = "Gaussian"
    paper = "Naseer et al. 2019, arXiv 1807.01216 (as a comparison)"
    presets = {"paper": {"size": 5}}

    def __post_init__(self) -> None:
        within("a window size in pixels", self.size, 1, 31, "the paper's is 5")
        within("a sigma in pixels", self.sigma, 1e-3, 100, "1 fits a window of 5")
        if self.size % 2 == 0:
            raise InputError(f"Expected an odd window size, but got {self.size}; the blur is centred on a pixel.")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The blurred images."""
        reach = self.size // 2
        distances = torch.arange(-reach, reach + 1, dtype=torch.float64)
        kernel = torch.exp(-0.5 * (distances / self.sigma) ** 2)
        weights = (kernel / kernel.sum()).tolist()
        padded = pad_mirrored(images, reach, reach)
        down = _along(padded, weights, 2, images.shape[2])
        return bounded(_along(down, weights, 3, images.shape[3]))


def _along(images: Tensor, weights: list[float], axis: int, length: int) -> Tensor:
    """Weighted sum of shifted images; product and sum are separate, so that no fused rounding depends on the batch."""
    total = images.narrow(axis, 0, length) * weights[0]
    for shift, weight in enumerate(weights[1:], start=1):
        total = total + images.narrow(axis, shift, length) * weight
    return total
