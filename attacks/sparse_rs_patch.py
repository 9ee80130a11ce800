"""Sparse-RS for patches: random search over a square patch's content and its place (arXiv 2006.12834).

The patch starts as 1,000 random squares of random corner colours at a random place. Every `location_period`-th query
moves it, by at most 0.75 · height · (1 − share of the search that is done); the others paint a square of the patch in
a corner colour: of side max(1, ⌊√(change ÷ d) · side⌋), with d doubling from 2 to 512. A square of one pixel gets a
colour other than its own; in the second half of the search one of its channels flips. Whatever is not worse stays.

Departures. Images and their patches need not be square images; each image has its own random numbers; an equal loss is
accepted. Where the model is random, winners are asked about once more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bench.contracts import Attack, Goal, Images, InputError, Model, Patch, Streams

from ._random_search import State, random_search, stepped
from .sparse_rs import check_search

_STAGES = tuple(
    zip((0, 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), (1, *[2**k for k in range(1, 10)]), strict=True)
)
_SQUARES = 1000


@dataclass(frozen=True)
class SparseRSPatch(Attack):
    """A square patch of corner colours and its place, found by random search from scores alone.

    Attributes:
        area: share of the image's pixels that the patch may cover, in (0, 1].
        queries: for each image at most, 1 or more (a random model takes up to twice as many).
        change: share of the patch that is repainted at first, in (0, 1]; the paper has 0.4 untargeted, 0.1 targeted.
        location_period: every so many queries the patch moves, 2 or more; the paper has 4 untargeted, 10 targeted.
    """

    area: float = 0.1
    queries: int = 5000
    change: float = 0.4
    location_period: int = 4

    title = "Sparse-RS patch"
    paper = "Croce, Andriushchenko, Singh, Flammarion, Hein, Sparse-RS, arXiv 2006.12834"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"queries": 500},
        "paper": {"area": 400 / 224**2, "queries": 10_000},
        "targeted": {"area": 1600 / 224**2, "queries": 50_000, "change": 0.1, "location_period": 10},
    }
    access = "scores"

    def __post_init__(self) -> None:
        if not 0 < self.area <= 1:
            raise ValueError(f"area is a share of the image in (0, 1], such as 0.1; got {self.area}.")
        check_search(self.queries, self.change)
        if self.location_period < 2:
            raise ValueError(f"location_period is 2 or more, so that the content changes; got {self.location_period}.")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where the square does not fit into the image."""
        _, height, width = image_shape
        side = self._side(height, width)
        if side > min(height, width):
            raise InputError(
                f"A square of {self.area:.3g} of the area is {side} pixels wide and does not fit into "
                f"{height}×{width} images. Choose a smaller area."
            )

    @property
    def budget(self) -> Patch:
        """One upright square of that area, freely."""
        return Patch(self.area, turned=False)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The first success of each image, or the best patch found."""
        _, channels, height, width = images.shape
        side = self._side(height, width)
        corner = rng.integers(_room(images, side), 2)
        state = (_random_squares(rng, channels, side), corner)
        return random_search(model, images, goal, rng, state, self._proposed, _pasted, self.queries)

    def _side(self, height: int, width: int) -> int:
        return math.isqrt(self.budget.pixels(height, width))

    def _proposed(self, state: State, done: int, rng: Streams, images: Images) -> State:
        patch, corner = state
        reach = int(0.75 * images.shape[2] * (1 - done / self.queries))
        if done % self.location_period == 0 and reach > 0:
            last = _room(images, patch.shape[2]) - 1
            moved = corner + rng.integers(2 * reach + 1, 2) - reach
            return patch, torch.minimum(moved.clamp(min=0), last)
        return self._repainted(patch, done, rng), corner

    def _repainted(self, patch: Int[Tensor, "n c s s"], done: int, rng: Streams) -> Int[Tensor, "n c s s"]:
        channels, side = patch.shape[1:3]
        share = stepped(self.change, done, self.queries, _STAGES)
        square = max(1, int(math.sqrt(share) * side))
        corner = rng.integers(side - square + 1, 2)
        inside = _square(corner[:, :1], corner[:, 1:], square, side)[:, 0, None]
        if square > 1:
            colour = rng.integers(2, channels)[..., None, None]
        elif 2 * done < self.queries:
            flips = 1 + rng.integers((1 << channels) - 1)  # not 0: at least one channel changes
            colour = patch ^ ((flips[:, None] >> torch.arange(channels, device=flips.device)) & 1)[..., None, None]
        else:
            colour = patch ^ torch.nn.functional.one_hot(rng.integers(channels), channels)[..., None, None]
        return torch.where(inside, colour, patch)


def _room(images: Images, side: int) -> Int[Tensor, "2"]:
    """In how many rows and columns the patch's upper left corner may lie."""
    return torch.tensor(images.shape[2:], device=images.device) - side + 1


def _square(
    rows: Int[Tensor, "n m"], columns: Int[Tensor, "n m"], size: int | Int[Tensor, "n m"], side: int
) -> Bool[Tensor, "n m s s"]:
    """Which pixels of a patch lie in squares with these upper left corners."""
    places = torch.arange(side, device=rows.device)
    down, right = places - rows[..., None], places - columns[..., None]
    size = size if isinstance(size, int) else size[..., None]
    return ((down >= 0) & (down < size))[..., :, None] & ((right >= 0) & (right < size))[..., None, :]


def _random_squares(rng: Streams, channels: int, side: int) -> Int[Tensor, "n c s s"]:
    """A patch of overlapping squares in corner colours; black where none came to lie."""
    sizes = 1 + rng.integers(max(1, math.ceil(math.sqrt(side)) - 1), _SQUARES)
    rows = rng.integers(side - sizes + 1, _SQUARES)
    columns = rng.integers(side - sizes + 1, _SQUARES)
    colours = rng.integers(2, _SQUARES, channels)
    patch = torch.zeros(len(rng), channels, side, side, dtype=torch.int64, device=rng.device)
    for one in range(_SQUARES):
        part = slice(one, one + 1)
        inside = _square(rows[:, part], columns[:, part], sizes[:, part], side)
        patch = torch.where(inside, colours[:, one, :, None, None], patch)
    return patch


def _pasted(state: State, images: Images) -> Images:
    patch, corner = state
    channels, side = patch.shape[1:3]
    width = images.shape[3]
    places = torch.arange(side, device=images.device)
    rows, columns = corner[:, :1] + places, corner[:, 1:] + places
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    flat = images.flatten(2)
    index = pixels[:, None].expand(-1, channels, -1)
    return flat.scatter(2, index, patch.flatten(2).to(images.dtype)).reshape(images.shape)
