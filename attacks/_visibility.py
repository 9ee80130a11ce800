"""How well each pixel hides a change: the weights by which GreedyFool prefers pixels.

`sigma` is the local contrast of Croce and Hein (2019, arXiv 1909.05040): the root of the smaller of the standard
deviations over three pixels along the row and along the column. `generator` is 1 − d, where d in [0, 1] is the
distortion map that a network predicts for the image. Either map is then sharpened (0 for the 30 % of the pixels where
a change shows most, 1 for the 25 % where it shows least) and blurred, so that pixels next to hidden ones count as
hidden too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Images, InputError

Distortion = Literal["none", "sigma", "generator"]
Pool = Literal["paper", "2d", "none"]


def weights(images: Images, distortion: Distortion, generator: str, pool: Pool) -> Float[Tensor, "n hw"]:
    """A weight in [0, 1] for each pixel; pixels of weight 0 come last. All 1 for an image that hides nothing.

    Args:
        images: shape (n, c, h, w).
        distortion: which map; `none` is 1 everywhere.
        generator: the network's file, for `distortion=generator`.
        pool: the blur. `2d` is a 3×3 mean. `paper` does what the authors' code does: a mean of three along the
            flattened image, which runs across row ends.
    """
    if distortion == "none":
        return torch.ones_like(images[:, 0]).flatten(1)
    hidden = _contrast(images) if distortion == "sigma" else 1 - _loaded(generator)(images).reshape(images[:, 0].shape)
    hidden = _blurred(_sharpened(hidden.to(images.dtype)), pool).flatten(1)
    return torch.where((hidden > 0).any(1, keepdim=True), hidden, 1)


def check_generator(generator: str, image_shape: tuple[int, int, int]) -> None:
    """Raises InputError unless the file holds a network that predicts a map in [0, 1] for such images."""
    black = torch.zeros(2, *image_shape)
    network = _loaded(generator)
    try:
        distortion = network(black)
    except Exception as error:  # anyone's network may fail in any way
        raise InputError(
            f"Expected a network for images of {tuple(black.shape)}, but {generator} does not take them: {error}"
        ) from error
    shapes = {(2, 1, *image_shape[1:]), (2, *image_shape[1:])}
    if distortion.shape not in shapes or not ((distortion >= 0) & (distortion <= 1)).all():
        raise InputError(
            f"Expected the network in {generator} to return a map in [0, 1] of shape (n, 1, h, w), but for "
            f"{tuple(black.shape)} it returned {tuple(distortion.shape)} between {distortion.min():.3g} and "
            f"{distortion.max():.3g}."
        )


def _loaded(generator: str) -> Callable[[Images], Tensor]:
    if not Path(generator).is_file():
        raise InputError(
            f"Expected distortion=generator with generator=FILE, saved by torch.export.save, but there is no file "
            f"{generator!r}."
        )
    try:
        return torch.export.load(generator).module()
    except Exception as error:
        raise InputError(f"Expected a file of torch.export.save, but {generator} cannot be read: {error}") from error


def _contrast(images: Images) -> Float[Tensor, "n h w"]:
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    along_row = padded[:, :, 1:-1].unfold(3, 3, 1).std(-1, correction=0)
    along_column = padded[:, :, :, 1:-1].unfold(2, 3, 1).std(-1, correction=0)
    return torch.minimum(along_row, along_column).sqrt().mean(1)


def _sharpened(hidden: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    def percentile(values: Tensor, share: float) -> Tensor:
        return values.flatten(1).kthvalue(max(1, round(share * values[0].numel())), dim=1).values[:, None, None]

    hidden = (hidden - percentile(hidden, 0.3)).clamp(min=0)
    scale = percentile(hidden, 0.75)
    scale = torch.where(scale > 0, scale, hidden.amax((1, 2), keepdim=True))
    return (hidden / scale.clamp(min=torch.finfo(hidden.dtype).tiny)).clamp(max=1)


def _blurred(hidden: Float[Tensor, "n h w"], pool: Pool) -> Float[Tensor, "n h w"]:
    if pool == "none":
        return hidden
    if pool == "2d":
        return F.avg_pool2d(hidden[:, None], 3, 1, 1, count_include_pad=False)[:, 0]
    return F.avg_pool2d(hidden.flatten(1)[:, None, None], 3, 1, 1).reshape(hidden.shape)
