"""Inpaints masked regions from their surroundings."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import BPDA, Images

from ._pixels import for_each

Masks = Bool[Tensor, "n 1 h w"]
RADIUS = 3
"""Radius in pixels of the neighbourhood from which OpenCV fills a pixel."""


def inpaint(images: Images, masks: Masks) -> Images:
    """Fills the masked pixels (Bertalmio et al. 2001, OpenCV), each channel separately, without rounding to 8 bits.

    OpenCV's other method (Telea 2004) adds up to 1.4 to every filled value, whatever its scale: one level of 255 there,
    but the whole range of an image in [0, 1]. This one keeps a constant image constant and is faster.

    Pixels outside the mask do not change by a bit, and those inside have no influence. The gradient is the identity
    outside the mask and zero inside.

    Args:
        images: shape (n, c, h, w), in [0, 1].
        masks: which pixels to fill; an image that is masked everywhere becomes mid-grey.
    """
    return BPDA.apply(  # type: ignore[no-any-return]  # torch has no types for Function.apply
        images,
        lambda x: _fill(x, masks),
        lambda x, gradient: gradient.masked_fill(masks, 0),
    )


def _fill(images: Images, masks: Masks) -> Images:
    hidden = images.masked_fill(masks, 0.5)
    together = torch.cat([hidden, masks.to(images.dtype)], 1).to("cpu", torch.float32)
    filled = for_each(_fill_image, together)[:, :-1].to(images).clamp(0, 1)
    whole = masks.all(dim=3, keepdim=True).all(dim=2, keepdim=True)
    return torch.where(masks & ~whole, filled, hidden)


def _fill_image(planes: NDArray[Any]) -> NDArray[Any] | list[NDArray[Any]]:
    """Fills one image, whose last plane is the mask."""
    mask = (planes[-1] > 0).astype(np.uint8)
    if not mask.any():
        return planes
    # For an image of one row, OpenCV reads uninitialised memory and sometimes returns NaN.
    high = [np.repeat(plane, 2, axis=0) if len(mask) == 1 else plane for plane in (*planes[:-1], mask)]
    channels = [cv2.inpaint(np.ascontiguousarray(plane), high[-1], RADIUS, cv2.INPAINT_NS) for plane in high[:-1]]
    return [*(channel[: len(mask)] for channel in channels), planes[-1]]
