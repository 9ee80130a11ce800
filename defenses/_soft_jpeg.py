"""Differentiable JPEG with smooth rounding, for the attacker's gradient only.

Shin, Song, "JPEG-resistant adversarial images" (NeurIPS 2017 workshop): rounding becomes round(c) + (c − round(c))³,
whose slope is near 0 if a coefficient is close to a level. So the gradient knows which frequencies survive the codec.
The images are about one level of 255 away from the codec's own.
"""

from __future__ import annotations

import math
from functools import cache
from io import BytesIO

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Images

BLOCK = 8
Planes = Float[Tensor, "n h w"]


def soft_jpeg(images: Images, quality: int) -> Images:
    """Images of 1 or 3 channels in [0, 1] -> approximately their JPEG images at this quality (4:2:0)."""
    luminance, chrominance = (table.to(images) for table in _tables(quality))
    if images.shape[1] == 1:
        return (_coded(images[:, 0] * 255 - 128, luminance)[:, None] + 128) / 255
    red, green, blue = (images * 255).unbind(1)
    light = _coded(0.299 * red + 0.587 * green + 0.114 * blue - 128, luminance) + 128
    bluish = _coarse(-0.168736 * red - 0.331264 * green + 0.5 * blue, chrominance)
    reddish = _coarse(0.5 * red - 0.418688 * green - 0.081312 * blue, chrominance)
    middle = light - 0.344136 * bluish - 0.714136 * reddish
    return torch.stack([light + 1.402 * reddish, middle, light + 1.772 * bluish], 1) / 255


def _coarse(plane: Planes, table: Float[Tensor, "8 8"]) -> Planes:
    """A chrominance plane, coded at half the size."""
    half = F.avg_pool2d(plane[:, None], 2, ceil_mode=True)
    coded = _coded(half[:, 0], table)[:, None]
    return F.interpolate(coded, size=plane.shape[1:], mode="bilinear")[:, 0]


def _coded(plane: Planes, table: Float[Tensor, "8 8"]) -> Planes:
    """Cosine transform of blocks, smooth quantisation, and the inverse transform."""
    count, height, width = plane.shape
    padded = F.pad(plane[:, None], (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    blocks = padded.reshape(count, padded.shape[2] // BLOCK, BLOCK, -1, BLOCK).transpose(2, 3)
    waves = _cosines().to(plane)
    levels = waves @ blocks @ waves.T / table
    nearest = levels.detach().round()
    rounded = nearest + (levels - nearest) ** 3
    pixels = waves.T @ (rounded * table) @ waves
    return pixels.transpose(2, 3).reshape(count, *padded.shape[2:])[:, :height, :width]


@cache
def _cosines() -> Float[Tensor, "8 8"]:
    """The matrix of the orthonormal cosine transform."""
    places = torch.arange(BLOCK, dtype=torch.float64)
    waves = torch.cos((2 * places + 1) * places[:, None] * math.pi / (2 * BLOCK)) / 2
    waves[0] /= math.sqrt(2)
    return waves


@cache
def _tables(quality: int) -> tuple[Float[Tensor, "8 8"], Float[Tensor, "8 8"]]:
    """The standard quantisation tables for luminance and chrominance, as scaled by the codec."""
    coded = BytesIO()
    Image.new("RGB", (BLOCK, BLOCK)).save(coded, "JPEG", quality=quality)
    with Image.open(coded) as image:
        tables = image.quantization  # type: ignore[attr-defined]  # only JPEG files have them
    first, second = (torch.tensor(tables[key], dtype=torch.float64).reshape(BLOCK, BLOCK) for key in (0, 1))
    return first, second
