"""How the pixel attack decodes a point of the unit cube into pixels and their colours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.contracts import Images

from ._evolution import Genes
from ._variants import paint


@dataclass(frozen=True)
class Coding:
    """Genes in [0, 1] -> `pixels` × (row, column, colour); the parameters are those of `Pixel`."""

    pixels: int
    eight_bit: bool
    additive: bool
    cluster: bool

    def painted(self, images: Images, genes: Genes) -> Float[Tensor, "n p c h w"]:
        """The variant of its image that each individual encodes."""
        return paint(images, *self.decoded(images, genes))

    def decoded(self, images: Images, genes: Genes) -> tuple[Int[Tensor, "n p k"], Float[Tensor, "n p k c"]]:
        """Pixels (row · width + column) and their colours in [0, 1]; uniform genes make all of them equally likely."""
        height, width = images.shape[2:]
        row, column, *shades = genes.reshape(*genes.shape[:2], self.pixels, 2 + images.shape[1]).unbind(3)
        pixels = self._places(row, height) * width + self._places(column, width)
        shade = torch.stack(shades, 3).to(images.dtype)
        if self.additive:
            own, change = colours_at(images, pixels) * 255, (2 * shade - 1) * 255
            shade = own.round() + change.round() if self.eight_bit else own + change
        else:
            shade = (shade * 256).floor() if self.eight_bit else shade * 255
        return pixels, shade.clamp(0, 255) / 255

    def change(self, images: Images, genes: Genes) -> Float[Tensor, "n p"]:
        """Euclidean length of the change; a pixel that occurs twice counts twice."""
        pixels, colours = self.decoded(images, genes)
        length: Tensor = (colours - colours_at(images, pixels)).flatten(2).norm(dim=2)
        return length

    def _places(self, gene: Float[Tensor, "n p k"], length: int) -> Int[Tensor, "n p k"]:
        """Rows or columns; with `cluster` the first pixel sets a 3×3 window that the others lie in."""
        places = (gene * length).to(torch.int64).clamp(max=length - 1)
        if not self.cluster or length < 3:
            return places
        centre = places[..., :1].clamp(1, length - 2)
        others = centre - 1 + (gene[..., 1:] * 3).to(torch.int64).clamp(max=2)
        return torch.cat([places[..., :1], others], 2)


def colours_at(images: Images, pixels: Int[Tensor, "n p k"]) -> Float[Tensor, "n p k c"]:
    """The images' own colours at these pixels."""
    index = pixels.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, index).transpose(1, 2).reshape(*pixels.shape, images.shape[1])
