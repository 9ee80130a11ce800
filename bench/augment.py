"""Random changes of training images that keep their class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bench.contracts import Images


def mirrored_shifts(images: Images, generator: torch.Generator, *, shift: int = 2, mirror: bool = True) -> Images:
    """Each image shifted by up to `shift` pixels along both axes, and mirrored at random.

    Args:
        images: shape (n, c, h, w), in [0, 1].
        generator: on the CPU.
        shift: in pixels; new pixels at a border repeat it.
        mirror: whether half of the images are mirrored, left to right.

    Returns:
        The same shape, in [0, 1].
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (shift,) * 4, mode="replicate")
    drawn = [torch.randint(high, (count,), generator=generator) for high in (2 * shift + 1, 2 * shift + 1, 2)]
    top, left, turned = (values.to(images.device) for values in drawn)
    rows = top[:, None] + torch.arange(height, device=images.device)
    across = torch.arange(width, device=images.device).expand(count, -1)
    columns = left[:, None] + torch.where(turned[:, None].bool() & mirror, across.flip(1), across)
    everyone = torch.arange(count, device=images.device)[:, None, None]
    return padded.movedim(1, -1)[everyone, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def scaled_crops(
    images: Images,
    generator: torch.Generator,
    *,
    size: int,
    zoom: tuple[float, float] = (0.7, 1.4),
    light: float = 0.1,
) -> Float[Tensor, "n c size size"]:
    """Random crops of `size` pixels, mirrored at random, at a random scale and in different light.

    Args:
        images: shape (n, c, h, w), in [0, 1], square and larger than `size`.
        generator: on the CPU.
        size: side of the result in pixels.
        zoom: range of the pixels of an image that make one pixel of its crop (log-uniform, at most the whole image).
        light: contrast and brightness change by factors within 1 ± light, and by an offset within ± light/4.

    Returns:
        shape (n, c, size, size), in [0, 1].
    """
    count, channels, side, _ = images.shape

    def between(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(count, *shape, generator=generator)).to(images.device)

    low, high = zoom
    share = (low * (high / low) ** between(0, 1) * size / side).clamp(max=1)
    mirror = between(0, 1).round() * 2 - 1
    transform = torch.zeros(count, 2, 3, device=images.device)
    transform[:, 0, 0], transform[:, 1, 1] = share * mirror, share
    transform[:, :, 2] = between(-1, 1, 2) * (1 - share)[:, None]
    grid = F.affine_grid(transform, [count, channels, size, size], align_corners=False)
    crops = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    mean = crops.mean((1, 2, 3), keepdim=True)
    contrast, brightness = between(1 - light, 1 + light, 2, 1, 1, 1).unbind(1)
    offset = between(-light / 4, light / 4, 1, 1, 1)
    return (((crops - mean) * contrast + mean) * brightness + offset).clamp(0, 1)
