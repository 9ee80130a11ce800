"""Bilateral filter: averages neighbours that are near in space and similar in colour.

Tomasi, Manduchi, ICCV 1998; Naseer et al. (arXiv 1807.01216) compare with a window of 5 and give no other parameters.

    y(p) = Σ_q w(p, q) x(q) / Σ_q w(p, q),   q in the disc of diameter `size` around p
    w(p, q) = exp(−|p − q|² / 2 space²) · exp(−d(p, q)² / 2 colour²),   d = mean over the channels of |x(p) − x(q)|

This is OpenCV's filter with the colour distance divided by the number of channels, so that grey and RGB images are
treated alike. By default, `colour` is the standard deviation of each image's values. scikit-image's filter (as of 0.26)
is not a reference: it reads its table of spatial weights, made for size + 1, with a row length of size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import Images, InputError, Streams, Transform

from ._pixels import for_each, pad_mirrored, refuse_nan
from ._ranges import within

LEAST = 1e-3
"""The smallest colour deviation, for images that are nearly constant."""


@dataclass(frozen=True)
class Bilateral(Transform):
    """Bilateral filter: smooths within regions, keeps edges.

    Attributes:
        size: diameter of the disc in pixels, odd, 3 to 15.
        space: standard deviation of the distance in pixels, above 0.
        colour: standard deviation of the colour distance, in (0, 1]; None for each image's own.
    """

    size: int = 5
    space: float = 1.0
    colour: float | None = None

    title = "bilateral"
    paper = "Tomasi and Manduchi 1998; Naseer et al. 2019, arXiv 1807.01216 (as a comparison)"
    presets = {"paper": {"size": 5}}

    def __post_init__(self) -> None:
        within("a size in pixels", self.size, 3, 15, "the paper's is 5")
        within("a spatial deviation in pixels", self.space, 1e-3, 100, "1 fits a size of 5")
        within("a colour deviation", self.colour, LEAST, 1e6, "omit it for each image's own")
        if self.size % 2 == 0:
            raise InputError(f"Expected an odd size, but got {self.size}; the disc is centred on a pixel.")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The filtered images; raises ValueError for NaN."""
        refuse_nan(images, "bilateral")
        channels = images.shape[1]
        fast = images.device.type == "cpu" and images.dtype == torch.float32 and channels in (1, 3)
        if not fast or images.requires_grad or not images.numel():
            return self.differentiable(images, rng)
        return for_each(self._filter, images)

    def differentiable(self, images: Images, rng: Streams) -> Images:
        """The same, neighbour by neighbour."""
        reach, (height, width) = self.size // 2, images.shape[2:]
        padded = pad_mirrored(images, reach, reach)
        precision = -0.5 / self._deviations(images).square()
        total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
        for row in range(-reach, reach + 1):
            for column in range(-reach, reach + 1):
                if math.hypot(row, column) > reach:
                    continue
                top, left = row + reach, column + reach
                neighbour = padded[..., top : top + height, left : left + width]
                distance = (neighbour - images).abs().mean(1, keepdim=True)
                near = math.exp(-0.5 * (row**2 + column**2) / self.space**2)
                weight = torch.exp(distance.square() * precision) * near
                total = total + neighbour * weight
                weights = weights + weight
        return total / weights

    def _deviations(self, images: Images) -> Float[Tensor, "n 1 1 1"]:
        if self.colour is not None:
            return images.new_full((len(images), 1, 1, 1), self.colour)
        return _mean((images - _mean(images)).square()).clamp_min(LEAST**2).sqrt()

    def _filter(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filters one image, shape (c, h, w); OpenCV sums the distances over the channels."""
        colour = self.colour or max(LEAST, cv2.meanStdDev(image.reshape(-1, image.shape[2]))[1].item())
        pixels, spread = cv2.merge(list(image)), colour * len(image)
        smooth = cv2.bilateralFilter(pixels, self.size, spread, self.space, borderType=cv2.BORDER_REFLECT)
        return np.asarray(smooth).reshape(*image.shape[1:], -1).transpose(2, 0, 1)


def _mean(values: Tensor) -> Float[Tensor, "n 1 1 1"]:
    """The mean of each image, by rows first: in a batch of one, torch would split a single long sum among threads."""
    return values.mean(3).flatten(1).mean(1)[:, None, None, None]
