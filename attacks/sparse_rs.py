"""Sparse-RS for pixels: random search over which pixels change and to which corner colours (arXiv 2006.12834).

It starts with `pixels` random pixels in random corner colours (every channel 0 or 1). Each query swaps some of them
for others in new corner colours and keeps the swap unless it is worse. How many: max(1, ⌊change · pixels ÷ d⌋), with d
growing from 2 to 20 over the search. Loss: the margin, or the cross-entropy where the goal is targeted.

Departures. Every image has its own random numbers, so that neither the batch nor its order matters, and an equal loss
is accepted. Where the model is random, winners are asked about once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import Attack, Goal, Images, InputError, Model, Pixels, Streams

from ._random_search import State, random_search, stepped
from ._variants import check_pixels, choose, paint

_STAGES = ((0, 2), (50, 4), (200, 5), (500, 6), (1000, 8), (2000, 10), (4000, 12), (6000, 15), (8000, 20))


@dataclass(frozen=True)
class SparseRS(Attack):
    """A few pixels in corner colours, found by random search from scores alone.

    Attributes:
        pixels: how many pixels change, from 1 to one less than the image has.
        queries: for each image at most, 1 or more (a random model takes up to twice as many).
        change: share of the pixels that is swapped at first, in (0, 1]; the paper has 0.3 untargeted, 0.1 targeted.
    """

    pixels: int = 10
    queries: int = 5000
    change: float = 0.3

    title = "Sparse-RS"
    paper = "Croce, Andriushchenko, Singh, Flammarion, Hein, Sparse-RS, arXiv 2006.12834"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"queries": 500},
        "paper": {"pixels": 50, "queries": 10_000},
        "targeted": {"pixels": 150, "queries": 100_000, "change": 0.1},
    }
    access = "scores"

    def __post_init__(self) -> None:
        check_pixels(self.pixels)
        check_search(self.queries, self.change)

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where there is no pixel to swap with."""
        room = image_shape[1] * image_shape[2]
        if self.pixels >= room:
            raise InputError(
                f"Sparse-RS swaps pixels, and an image of {room} has no other than {self.pixels}. Lower pixels."
            )

    @property
    def budget(self) -> Pixels:
        """That many pixels, freely."""
        return Pixels(self.pixels)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The first success of each image, or the best pixels found."""
        _, channels, height, width = images.shape
        # A state: all pixels in some order, the first `pixels` of them changed, and the colours of those.
        order = rng.permutations(height * width)
        colours = rng.integers(2, self.pixels, channels)
        return random_search(model, images, goal, rng, (order, colours), self._swapped, self._painted, self.queries)

    def _swapped(self, state: State, done: int, rng: Streams, images: Images) -> State:
        order, colours = state[0].clone(), state[1].clone()
        others = order.shape[1] - self.pixels
        count = min(max(1, int(stepped(self.change * self.pixels, done, self.queries, _STAGES))), others)
        out, into = choose(rng, self.pixels, count), choose(rng, others, count) + self.pixels
        leaving, coming = order.gather(1, out), order.gather(1, into)
        order = order.scatter(1, out, coming).scatter(1, into, leaving)
        fresh = rng.integers(2, count, colours.shape[2])
        return order, colours.scatter(1, out[..., None].expand_as(fresh), fresh)

    def _painted(self, state: State, images: Images) -> Images:
        order, colours = state
        return paint(images, order[:, None, : self.pixels], colours[:, None].to(images.dtype))[:, 0]


def check_search(queries: int, change: float) -> None:
    """Raises ValueError where the parameters of a random search make no sense."""
    if queries < 1:
        raise ValueError(f"queries is how often each image may be asked about, 1 or more; got {queries}.")
    if not 0 < change <= 1:
        raise ValueError(f"change is the share that is changed at first, in (0, 1]; got {change}.")
