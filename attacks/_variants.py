"""Many variants of each image at once: painted, asked about, compared.

Wherever two variants are compared, one that reaches the goal comes before one that does not, and then the lower
loss wins. All reductions stay inside one image, so that nothing depends on the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.contracts import Goal, Images, InputError, Model, Streams
from bench.memory import in_pieces, piece_of

Loss = Callable[[Goal, Tensor], Tensor]


def paint(
    images: Images, pixels: Int[Tensor, "n p k"], colours: Float[Tensor, "n p k c"]
) -> Float[Tensor, "n p c h w"]:
    """`p` variants of each image, with `k` pixels of each repainted.

    Args:
        images: shape (n, c, h, w).
        pixels: row · width + column of each pixel; where a variant names one twice, the first colour holds.
        colours: values in [0, 1].
    """
    variants = pixels.shape[1]
    first = (pixels[..., :, None] == pixels[..., None, :]).int().argmax(-1)
    colours = colours.gather(2, first[..., None].expand_as(colours)).to(images.dtype)
    canvas = images.flatten(2)[:, None].repeat(1, variants, 1, 1)
    index = pixels[:, :, None].expand(-1, -1, images.shape[1], -1)
    return canvas.scatter_(3, index, colours.transpose(2, 3)).reshape(len(images), variants, *images.shape[1:])


def ask(
    model: Model,
    images: Images,
    goal: Goal,
    loss: Loss,
    variants: int,
    make: Callable[[slice], Float[Tensor, "m p c h w"]],
) -> tuple[Float[Tensor, "n p"], Bool[Tensor, "n p"]]:
    """Loss of each variant of each image, and whether it reaches the goal; one query each.

    Args:
        model: for n images; `images` and `goal` too.
        images: the originals.
        goal: what is wanted.
        loss: of a goal and logits, for each row.
        variants: how many there are of each image.
        make: the variants of some of the images; they are made when they are asked about, not all at once.
    """
    owners = torch.arange(len(model), device=goal.labels.device)

    def piece(part: slice) -> Tensor:
        whose = owners[part].repeat_interleave(variants)
        logits = model(make(part).flatten(0, 1), of=whose)
        rows = goal[whose]
        losses = loss(rows, logits)
        return torch.stack([losses, rows.reached(logits).to(losses.dtype)], 1)

    # Whole images at a time: the answers of a random model then do not depend on how the batch is cut.
    at_once = max(1, piece_of(images.shape) // variants)
    found = in_pieces(piece, len(owners), at_once).reshape(len(owners), variants, 2)
    return found[..., 0], found[..., 1] > 0


def better(losses: Tensor, reached: Tensor, than_losses: Tensor, than_reached: Tensor) -> Bool[Tensor, "..."]:
    """Which of the new ones replace the old ones; at equal loss they do, so that a search may drift on a plateau."""
    return (reached & ~than_reached) | ((reached == than_reached) & (losses <= than_losses))


def best_of(losses: Float[Tensor, "n p"], reached: Bool[Tensor, "n p"]) -> Int[Tensor, "n 1"]:
    """Index of each image's best variant."""
    candidates = reached | ~reached.any(1, keepdim=True)
    return losses.masked_fill(~candidates, torch.inf).argmin(1, keepdim=True)


def choose(rng: Streams, size: int, count: int) -> Int[Tensor, "n count"]:
    """For each image `count` different numbers out of 0 .. size − 1 (Floyd's sampling: no list of all of them)."""
    chosen = torch.empty(len(rng), 0, dtype=torch.int64, device=rng.device)
    for last in range(size - count, size):
        number = rng.integers(last + 1, 1)
        taken = (chosen == number).any(1, keepdim=True)
        chosen = torch.cat([chosen, number.masked_fill(taken, last)], 1)
    return chosen


def check_pixels(pixels: int) -> None:
    """Raises ValueError where this is no number of pixels."""
    if pixels < 1:
        raise ValueError(f"pixels is how many pixels may change, 1 or more; got {pixels}.")


def check_room(pixels: int, image_shape: tuple[int, int, int]) -> None:
    """Raises InputError where an image (c, h, w) has fewer pixels than that."""
    height, width = image_shape[1:]
    if pixels > height * width:
        raise InputError(f"{height}×{width} images have {height * width} pixels; {pixels} cannot change. Lower pixels.")
