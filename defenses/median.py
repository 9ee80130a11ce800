"""Median filter: replaces each value by the median of its neighbourhood, in each channel.

Xu, Evans, Qi, "Feature squeezing" (arXiv 1704.01155); Naseer et al. (arXiv 1807.01216) with a 3×3 window.

    y(i, j) = median of x over the size×size window around (i, j)

Equal to SciPy's `median_filter` with mode "reflect" to the bit, also for even windows: they extend one pixel further to
the left and up, and the median is the upper of the two middle values. On a CPU, OpenCV does 3×3 and 5×5 in a
hundredth of the time.

The exact gradient goes to the pixel that is the median now, which moves away as soon as that pixel changes. An attacker
who looks for a few pixels is misled by it and instead spreads the gradient over the window (view `bpda`), with weights

    softmax over the window of −|x − y| / SPREAD

Of 24 CIFAR-10 images, ten pixels by GreedyFool leave 12 through the exact gradient and 2 through this one (ResNet-20;
Sparse-RS with 300 queries leaves 6). Small changes everywhere follow the exact one better: of 31 images, I-FGSM with
2/255 leaves 1 through it and 7 through the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import torch
from numpy.typing import NDArray

from bench.contracts import Images, Streams, Transform

from ._pixels import for_each, neighbours, pad_mirrored, refuse_nan
from ._ranges import within

SPREAD = 0.5
"""Distance from the median at which a pixel's share of the gradient has fallen to 1/e."""


@dataclass(frozen=True)
class Median(Transform):
    """Median filter: removes single pixels and thin structures, keeps edges.

    Attributes:
        size: side of the window in pixels, 1 to 15; 2 is common for small images.
    """

    size: int = 3

    title = "median"
    paper = "Xu et al. 2018, arXiv 1704.01155"
    views = ("bpda", "exact")
    presets = {"paper": {"size": 3}}

    def __post_init__(self) -> None:
        within("a window size in pixels", self.size, 1, 15, "the papers use 2 and 3")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The filtered images; raises ValueError for NaN."""
        return median(images, self.size)

    def backward(self, images: Images, gradient: Images) -> Images:
        """The gradient spread over the window of each value."""
        return spread(images, gradient, self.size)


def median(images: Images, size: int) -> Images:
    """The median of the size×size window around each value; differentiable, but then slower."""
    refuse_nan(images, "median")
    if not images.numel():
        return images.clone()
    differentiable = torch.is_grad_enabled() and images.requires_grad
    if differentiable or images.device.type != "cpu" or images.dtype != torch.float32 or size not in (3, 5):
        window = torch.stack(neighbours(images, size), dim=-1)
        return window.kthvalue(size**2 // 2 + 1, dim=-1).values
    # OpenCV repeats the border, which equals mirroring it for windows that extend one pixel beyond it.
    reach = size // 2 if size > 3 else 0
    padded = pad_mirrored(images, reach, reach) if reach else images
    smooth = for_each(partial(_filter, size=size), padded.detach())
    return smooth[..., reach : reach + images.shape[2], reach : reach + images.shape[3]].contiguous()


def spread(images: Images, gradient: Images, size: int) -> Images:
    """The gradient at `images`, given that at their medians: shared among the window, most for values near the median.

    All of a window that is near can move its median, though only one value of it is the median.
    """
    with torch.enable_grad():
        variable = images.detach().requires_grad_()
        window = torch.stack(neighbours(variable, size), dim=-1)
        distances = (window.detach() - median(images.detach(), size)[..., None]).abs()
        smooth = (window * (-distances / SPREAD).softmax(-1)).sum(-1)
        return torch.autograd.grad(smooth, variable, gradient)[0]


def _filter(image: NDArray[Any], size: int) -> list[NDArray[Any]]:
    return [cv2.medianBlur(channel, size) for channel in image]
