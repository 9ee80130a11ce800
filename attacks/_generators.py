"""Where the flowers of TnT come from: a formula that needs no training, or a trained generator from a file.

A generator is a network: latents of shape (r, latent) -> pictures of shape (r, 3, side, side) in [0, 1]. A latent is
natural, so to speak, while none of its values is further than `LIMIT` from 0; that is the declared set, and standard
normal numbers cut there are the usual draw.

A file is safetensors: the weights, and in its metadata the name of an architecture and the numbers that it is built
from (`architecture`, `latent`, `side`, `width`). `train_generator` writes such files.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.contracts import Images, InputError

LIMIT = 2.0
"""The largest absolute value in a latent."""

Latents = Float[Tensor, "r d"]


class Generator(nn.Module):
    """Latents -> pictures.

    Attributes:
        latent: how many numbers a latent has.
        side: of a picture, in pixels.
    """

    latent: int
    side: int

    def forward(self, latents: Latents) -> Images:
        """Pictures of shape (r, 3, side, side), in [0, 1]."""
        raise NotImplementedError


class ProceduralFlower(Generator):
    """A flower from a formula: two whorls of petals and a heart before a plain ground.

    Everything is smooth in the latent; the number of petals too, since a soft choice between whole numbers is made.
    Each value of a latent moves one property through its range: 14 of shape, then hue, saturation and brightness of
    the ground, the petals' tips, their base, the inner whorl and the heart.
    """

    latent = 29
    petals = (3.0, 9.0)

    def __init__(self, side: int = 32) -> None:
        super().__init__()
        self.side = side

    def forward(self, latents: Latents) -> Images:
        """Ground, petals, inner petals and heart, each laid over the one before with a soft edge."""
        shares = 0.5 + latents / (2 * LIMIT)
        shape = shares[:, :14, None, None].unbind(1)
        ground, tip, base, inner, heart = _colours(shares[:, 14:].unflatten(1, (5, 3))).unbind(1)
        count, turn, size, depth, sharp, heart_size, inner_size, inner_turn, veins, vein_count, *rest = shape
        rings, ring_count, right, down = rest
        radius, powers = self._polar(right, down)
        weights = _soft_choice(self.petals[0] + (self.petals[1] - self.petals[0]) * count, powers)

        outer_edge = (0.7 + 0.7 * size) * (1 - (0.1 + 0.6 * depth) * _valley(weights, powers, turn, sharp))
        inner_edge = (0.3 + 0.4 * inner_size) * outer_edge.mean((2, 3), keepdim=True)
        inner_edge = inner_edge * (1 - 0.5 * _valley(weights, powers, inner_turn, sharp))
        heart_edge = 0.1 + 0.35 * heart_size

        along = (radius / outer_edge).clamp(max=1)
        stripe = _wave(weights, powers, turn, 1 + vein_count)
        shade = 1 - 0.5 * veins * stripe - 0.5 * rings * (0.5 + 0.5 * torch.cos(18 * ring_count * radius))
        picture = _over(ground.expand(-1, -1, self.side, self.side), base + (tip - base) * along[:, None], outer_edge, radius)
        picture = _over(picture, inner, inner_edge, radius)
        picture = _over(picture * shade.clamp(0, 1)[:, None], heart, heart_edge, radius)
        return picture.clamp(0, 1)
