"""One-pixel attacks that are cheap enough to train against: a whole batch at once, on the current weights."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Images, Streams

from ._ascent import loss_gradient
from ._training import evaluating

Search = Literal["greedy", "random", "de"]
POPULATION, GENERATIONS = 20, 3
"""Of a differential evolution that is affordable at every training step; the real attack has 400 and 100."""


def one_pixel(
    network: nn.Module, images: Images, labels: Tensor, rng: Streams, search: Search, candidates: int
) -> Images:
    """Images with one pixel changed so that the network's cross-entropy is large.

    Args:
        network: called in evaluation mode; its weights and batch norm statistics do not change.
        images: shape (n, c, h, w), in [0, 1].
        labels: shape (n,).
        rng: one stream for each image.
        search: `greedy` tries the pairs of a pixel and a corner of the colour cube with the best gain to first order,
            `random` random pairs, and `de` is differential evolution.
        candidates: number of pairs that `greedy` and `random` try on each image.
    """
    with evaluating(network):
        if search == "de":
            return _evolved(network, images, labels, rng)
        places, colours = _tries(network, images, labels, rng, search, candidates)
        return _worst(network, images, labels, rng, places, colours)


def _tries(
    network: nn.Module, images: Images, labels: Tensor, rng: Streams, search: Search, candidates: int
) -> tuple[Int[Tensor, "n tries"], Float[Tensor, "n tries c"]]:
    """Pixels and their colours to try."""
    channels, height, width = images.shape[1:]
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=channels)), dtype=images.dtype).to(images.device)
    if search == "random":
        return rng.integers(height * width, candidates), corners[rng.integers(len(corners), candidates)]
    slopes = loss_gradient(network, images, labels, rng).flatten(2)
    here = (slopes * images.flatten(2)).sum(1)[:, :, None]
    gain = (torch.einsum("ncp,kc->npk", slopes, corners) - here).flatten(1)
    best = gain.topk(min(candidates, gain.shape[1])).indices
    return best // len(corners), corners[best % len(corners)]


def painted(
    images: Images, places: Int[Tensor, "n tries"], colours: Float[Tensor, "n tries c"]
) -> Float[Tensor, "n tries c h w"]:
    """Each image once per try, with the pixel at that place in that colour."""
    count, channels, height, width = images.shape
    tries = places.shape[1]
    flat = images.flatten(2)[:, None].expand(-1, tries, -1, -1)
    where = places[:, :, None, None].expand(-1, -1, channels, 1)
    return flat.scatter(3, where, colours[..., None]).reshape(count, tries, channels, height, width)


def _losses(network: nn.Module, tried: Float[Tensor, "n tries c h w"], labels: Tensor, rng: Streams) -> Tensor:
    """Cross-entropy of every try, shape (n, tries)."""
    count, tries = tried.shape[:2]
    owners = torch.arange(count, device=labels.device).repeat_interleave(tries)
    with torch.no_grad():
        logits = network(tried.flatten(0, 1), rng[owners])
        return F.cross_entropy(logits, labels[owners], reduction="none").reshape(count, tries)


def _worst(network: nn.Module, images: Images, labels: Tensor, rng: Streams, places: Tensor, colours: Tensor) -> Images:
    tried = painted(images, places, colours)
    worst = _losses(network, tried, labels, rng).argmax(1) if tried.shape[1] > 1 else torch.zeros_like(labels)
    return tried[torch.arange(len(images), device=images.device), worst]


def _evolved(network: nn.Module, images: Images, labels: Tensor, rng: Streams) -> Images:
    """Differential evolution (DE/rand/1 without crossover, F = 0.5, as Su et al. 2019) of place and colour."""
    channels, height, width = images.shape[1:]
    genes = rng.uniform(POPULATION, 2 + channels).to(images.dtype)

    def decoded(genes: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = (
            (genes[..., axis] * side).long().clamp(max=side - 1) for axis, side in enumerate((height, width))
        )
        return rows * width + columns, genes[..., 2:]

    fitness = _losses(network, painted(images, *decoded(genes)), labels, rng)
    for generation in range(GENERATIONS):
        order = rng.derive(f"generation {generation}").permutations(POPULATION)[..., None].expand_as(genes)
        first, second, third = (genes.gather(1, order.roll(shift, 1)) for shift in range(3))
        children = (first + 0.5 * (second - third)).clamp(0, 1)
        losses = _losses(network, painted(images, *decoded(children)), labels, rng)
        better = losses > fitness
        genes = torch.where(better[..., None], children, genes)
        fitness = torch.where(better, losses, fitness)
    best = fitness.argmax(1)
    places, colours = decoded(genes[torch.arange(len(images), device=images.device), best][:, None])
    return painted(images, places, colours)[:, 0]
