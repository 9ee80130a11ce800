"""Paints, queries and compares many variants of each image at once.

A variant that reaches the goal beats one that does not; otherwise the lower loss wins. All reductions are within an
image, so that nothing depends on the batch.
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
    """`p` variants of each image, each with `k` pixels repainted.

    Args:
        images: shape (n, c, h, w).
        pixels: row · width + column of each pixel; if a variant has one twice, its first colour counts.
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
    """The loss of each variant of each image, and whether it reaches the goal; one query each.

    Args:
        model: for n images, as `images` and `goal` are.
        images: the originals.
        goal: the attacker's goal.
        loss: the loss of each row, from a goal and logits.
        variants: how many variants each image has.
        make: the variants of a slice of the images; called piece by piece to save memory.
    """
    owners = torch.arange(len(model), device=goal.labels.device)

    def piece(part: slice) -> Tensor:
        rows = owners[part].repeat_interleave(variants)
        logits = model(make(part).flatten(0, 1), of=rows)
        losses = loss(goal[rows], logits)
        return torch.stack([losses, goal[rows].reached(logits).to(losses.dtype)], 1)

    # Whole images at a time, so that the answers of a random model do not depend on how the batch is split.
    at_once = max(1, piece_of(images.shape) // variants)
    losses, reached = in_pieces(piece, len(owners), at_once).reshape(len(owners), variants, 2).unbind(2)
    return losses, reached > 0


def better(losses: Tensor, reached: Tensor, than_losses: Tensor, than_reached: Tensor) -> Bool[Tensor, "..."]:
    """Which new candidates replace the old ones; ties do, so that a search can drift on a plateau."""
    return (reached & ~than_reached) | ((reached == than_reached) & (losses <= than_losses))


def best_of(losses: Float[Tensor, "n p"], reached: Bool[Tensor, "n p"]) -> Int[Tensor, "n 1"]:
    """Index of each image's best variant."""
    candidates = reached | ~reached.any(1, keepdim=True)
    return losses.masked_fill(~candidates, torch.inf).argmin(1, keepdim=True)


def choose(rng: Streams, size: int, count: int) -> Int[Tensor, "n count"]:
    """For each image `count` different numbers from 0 .. size − 1 (Floyd's sampling, without a list of all of them)."""
    chosen = torch.empty(len(rng), 0, dtype=torch.int64, device=rng.device)
    for last in range(size - count, size):
        number = rng.integers(last + 1, 1)
        taken = (chosen == number).any(1, keepdim=True)
        chosen = torch.cat([chosen, number.masked_fill(taken, last)], 1)
    return chosen


def check_pixels(pixels: int) -> None:
    """Raises ValueError for fewer than one pixel."""
    if pixels < 1:
        raise ValueError(f"Expected pixels to be 1 or more, but got {pixels}.")


def check_room(pixels: int, image_shape: tuple[int, int, int]) -> None:
    """Raises InputError if an image (c, h, w) has fewer pixels."""
    _, height, width = image_shape
    if pixels > height * width:
        raise InputError(
            f"Expected at most {height * width} pixels for {height}×{width} images, but got {pixels}. Lower pixels."
        )
