"""How little a change of each pixel shows: the weights by which GreedyFool prefers pixels.

`sigma` is the local contrast of Croce and Hein (2019, arXiv 1909.05040): the root of the smaller of the standard
deviations over three pixels along the row and along the column. `generator` takes 1 − a distortion map in [0, 1] that
a network makes of the image. Either map is then sharpened: the 30 % most visible pixels get 0, the 25 % least visible
get 1, and the map is blurred, so that a pixel beside hidden ones counts as hidden too.
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
    """Weights in [0, 1] for each pixel: 0 is never chosen first; all 1 for an image where nothing is hidden.

    Args:
        images: shape (n, c, h, w).
        distortion: which map; `none` is 1 everywhere.
        generator: file of the network, for `distortion=generator`.
        pool: the blur. `2d` is a 3×3 mean. `paper` is what the authors' program does: a mean of three along the
            flattened image, which runs over row ends, divided by three.
    """
    if distortion == "none":
        return torch.ones_like(images[:, 0]).flatten(1)
    hidden = _contrast(images) if distortion == "sigma" else 1 - _loaded(generator)(images).reshape(images[:, 0].shape)
    hidden = _blurred(_sharpened(hidden.to(images.dtype)), pool).flatten(1)
    return torch.where((hidden > 0).any(1, keepdim=True), hidden, 1)


def check_generator(generator: str, image_shape: tuple[int, int, int]) -> None:
    """Raises InputError where the file holds no network that makes a map in [0, 1] of such images."""
    black = torch.zeros(2, *image_shape)
    try:
        made = _loaded(generator)(black)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"The network in {generator} does not take {tuple(black.shape)} images: {error}") from error
    if made.shape not in {(2, 1, *image_shape[1:]), (2, *image_shape[1:])} or not ((made >= 0) & (made <= 1)).all():
        raise InputError(
            f"The network in {generator} is to return a map in [0, 1] of shape (n, 1, h, w), but for "
            f"{tuple(black.shape)} it returned {tuple(made.shape)} between {made.min():.3g} and {made.max():.3g}."
        )


def _loaded(generator: str) -> Callable[[Images], Tensor]:
    if not Path(generator).is_file():
        raise InputError(
            f"distortion=generator needs generator=FILE, a network saved with torch.export.save; there is no file "
            f"{generator!r}."
        )
    try:
        return torch.export.load(generator).module()
    except Exception as error:
        raise InputError(f"{generator} cannot be read; it is to be saved with torch.export.save: {error}") from error


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
