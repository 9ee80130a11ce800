"""Square patches at random places in images."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Images, Streams

Mask = Bool[Tensor, "n 1 h w"]


def pasted(images: Images, patches: Float[Tensor, "n c tall wide"], rng: Streams, area: float) -> Images:
    """Each image with its own patch at a random place, scaled to a square of about `area` of the image.

    Args:
        images: shape (n, c, h, w).
        patches: shape (n, c, tall, wide); gradients flow to them.
        rng: one stream for each image.
        area: share of the image, in (0, 1].
    """
    height, width = images.shape[2:]
    side = min(max(1, round((area * height * width) ** 0.5)), height, width)
    scaled = F.interpolate(patches, (side, side), mode="bilinear", antialias=True)
    places = [torch.arange(n, device=images.device) - rng.integers(n - side + 1, 1) for n in (height, width)]
    inside = [(place >= 0) & (place < side) for place in places]
    rows, columns = (place.clamp(0, side - 1) for place in places)
    everyone = torch.arange(len(images), device=images.device)[:, None, None]
    spread = scaled.movedim(1, -1)[everyone, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    return torch.where(inside[0][:, None, :, None] & inside[1][:, None, None, :], spread, images)


def squares(images: Images, rng: Streams, area: float) -> Mask:
    """Where `pasted` puts the patches with these streams."""
    blank = torch.zeros_like(images[:, :1])
    return pasted(blank, torch.ones_like(blank[..., :1, :1]), rng, area) > 0
