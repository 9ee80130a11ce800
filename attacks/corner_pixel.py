"""Corner pixel: tries every pixel in every corner colour; exhaustive for one pixel, greedy for more.

The candidates are all positions × all colours with channels 0 or 1 (2^channels of them): 8,192 queries for a 32×32
colour image. For one pixel this finds any success that corner colours allow, so it is a yardstick for heuristic
searches; the corners do nearly as well as all colours (Croce and Hein 2019, arXiv 1909.05040, use the same
candidates). For more pixels, the best candidate of a round stays and the next round searches on top of it. That part
is greedy, not exhaustive, and our own.

Promising candidates come first. The first round starts with a lattice of every fourth row and column; any other
candidate is as promising as its neighbour on the lattice in the same colour. Later rounds are ordered by the losses
of the round before. The order decides how soon a success is found, not what is tried. An image is finished after the
first chunk of 512 candidates with a success. Nothing is random. On a random model, a success must hold when queried
again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.contracts import Attack, Goal, Images, Model, NotApplicableError, Pixels, Streams

from ._variants import ask, best_of, check_pixels, paint

CHUNK = 512


@dataclass(frozen=True)
class CornerPixel(Attack):
    """All positions × all corner colours for one pixel; greedily repeated for more.

    Attributes:
        pixels: how many pixels may change, at least 1.
        share: share of the candidates to try in each round, most promising first, in (0, 1]; 1 is exhaustive.
        most: how many candidates a round tries at most, 1 or more; none: as many as `share` says.
    """

    pixels: int = 1
    share: float = 1.0
    most: int | None = None

    title = "Corner pixel"
    paper = "candidates as in Croce, Hein, Sparse and Imperceivable Adversarial Attacks, arXiv 1909.05040"
    presets = {"quick": {"share": 0.1}}
    access = "scores"

    def __post_init__(self) -> None:
        check_pixels(self.pixels)
        if not 0 < self.share <= 1:
            raise ValueError(f"Expected share in (0, 1], but got {self.share}.")
        if self.most is not None and self.most < 1:
            raise ValueError(f"Expected most to be 1 or more, or none, but got {self.most}.")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises NotApplicableError for images with too many channels to list all corner colours."""
        if image_shape[0] > 8:
            raise NotApplicableError(f"corner-pixel is for images of at most 8 channels; these have {image_shape[0]}.")

    @property
    def budget(self) -> Pixels:
        """So many pixels, changed freely."""
        return Pixels(self.pixels)

    @torch.no_grad()
    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The first success of each image, or the best candidate of the last round."""
        adversarial, rows = images.clone(), torch.arange(len(images), device=images.device)
        candidates = images[0, 0].numel() << images.shape[1]
        tries = min(math.ceil(self.share * candidates), self.most or candidates)
        lattice, on_lattice = _lattice(images, tries / candidates)
        lattice = lattice[:tries]  # on a small image, even a coarse lattice may be larger
        losses = images.new_full((len(images), candidates), torch.inf)
        for turn in range(self.pixels):
            begin, end = turn / self.pixels, (turn + 1) / self.pixels
            if turn == 0:
                begin = end * len(lattice) / tries
                winners = _try(model, images, goal, lattice.expand(len(images), -1), losses, (0, begin))
                promise = losses[:, on_lattice].masked_fill(losses.isfinite(), torch.inf)
                order = promise.argsort(dim=1, stable=True)[:, : tries - len(lattice)]
            else:
                winners, order = torch.full_like(rows, -1), losses.argsort(dim=1, stable=True)[:, :tries]
                losses = torch.full_like(losses, torch.inf)
            left = (winners < 0).nonzero()[:, 0]
            tried = losses[left]
            winners[left] = _try(model[left], images[left], goal[left], order[left], tried, (begin, end))
            losses[left] = tried
            success = winners >= 0
            images = _painted(images, torch.where(success, winners, losses.argmin(1))[:, None])[:, 0]
            adversarial[rows] = images
            stay = ~success
            model.note("unconverged", stay)
            rows, images, losses, model, goal = rows[stay], images[stay], losses[stay], model[stay], goal[stay]
        return adversarial


def _try(
    model: Model,
    images: Images,
    goal: Goal,
    order: Int[Tensor, "n tries"],
    losses: Float[Tensor, "n candidates"],
    progress: tuple[float, float],
) -> Int[Tensor, "n"]:
    """Tries candidates in this order until one succeeds, and fills in `losses`; returns the winners, −1 for none."""
    winners = torch.full((len(images),), -1, device=images.device)
    active = torch.arange(len(images), device=images.device)
    for start in range(0, order.shape[1], CHUNK):
        if not len(active):
            break
        chosen = order[active, start : start + CHUNK]
        margins, reached = _ask(model[active], images[active], goal[active], chosen)
        losses[active[:, None], chosen] = margins.to(losses.dtype)
        best = best_of(margins, reached)
        success, winner = reached.gather(1, best)[:, 0], chosen.gather(1, best)
        if model.classifier.random:
            success &= _ask(model[active], images[active], goal[active], winner)[1][:, 0]
        winners[active[success]] = winner[success, 0]
        active = active[~success]
        model.progress(progress[0] + (progress[1] - progress[0]) * (start + chosen.shape[1]) / order.shape[1])
    return winners


def _ask(model: Model, images: Images, goal: Goal, chosen: Int[Tensor, "n p"]) -> tuple[Tensor, Tensor]:
    return ask(model, images, goal, Goal.margin, chosen.shape[1], lambda part: _painted(images[part], chosen[part]))


def _painted(images: Images, candidates: Int[Tensor, "n p"]) -> Float[Tensor, "n p c h w"]:
    """Candidate = pixel · corners + colour, where the bits of a colour are its channels."""
    channels = images.shape[1]
    bits = torch.arange(channels, device=images.device)
    colours = ((candidates[..., None] >> bits) & 1).to(images.dtype)
    return paint(images, (candidates >> channels)[..., None], colours[:, :, None])


def _lattice(images: Images, share: float) -> tuple[Int[Tensor, "lattice"], Int[Tensor, "candidates"]]:
    """The candidates of a coarse lattice, and every candidate's nearest one on it."""
    channels, height, width = images.shape[1:]
    spacing = max(4, math.ceil(math.sqrt(2 / share)))  # at most half of the tries go to the lattice

    def nearest(length: int) -> Tensor:
        places = torch.arange(length, device=images.device)
        return (places - places % spacing + spacing // 2).clamp(max=length - 1)

    pixels = (nearest(height)[:, None] * width + nearest(width)).flatten()
    colours = torch.arange(1 << channels, device=images.device)
    on_lattice = ((pixels[:, None] << channels) + colours).flatten()
    return torch.unique(on_lattice), on_lattice
