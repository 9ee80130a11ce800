"""One-pixel attacks that are cheap enough to train against: a whole batch at once, on the present weights."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Images, Streams

from ._ascent import gradient_of
from ._training import evaluating

Search = Literal["greedy", "random", "de"]
POPULATION, GENERATIONS = 20, 3
"""Of the differential evolution that is affordable at every step of a training; the attack has 400 and 100."""


def one_pixel(
    network: nn.Module, images: Images, labels: Tensor, rng: Streams, search: Search, candidates: int
) -> Images:
    """Images with one pixel changed so that the network's cross-entropy is large.

    Args:
        network: called in evaluation mode; its weights and its batch norms stay as they are.
        images: shape (n, c, h, w), in [0, 1].
        labels: shape (n,).
        rng: one stream for each image.
        search: `greedy` tries those pixels with those corners of the colour cube that the gradient promises most of;
            `random` random pixels with random corners; `de` is differential evolution.
        candidates: how many pairs of a pixel and a corner `greedy` and `random` try on each image.
    """
    with evaluating(network):
        if search == "de":
            return _evolved(network, images, labels, rng)
        places, colours = _tries(network, images, labels, rng, search, candidates)
        return _worst(network, images, labels, rng, places, colours)


def _tries(
    network: nn.Module, images: Images, labels: Tensor, rng: Streams, search: Search, candidates: int
) -> tuple[Int[Tensor, "n tries"], Float[Tensor, "n tries c"]]:
    """Which pixels take which colours."""
    channels, height, width = images.shape[1:]
    corners = torch.tensor(list(itertools.product((0.0, 1.0), repeat=channels)), dtype=images.dtype).to(images.device)
    if search == "random":
        return rng.integers(height * width, candidates), corners[rng.integers(len(corners), candidates)]
    slopes = gradient_of(network, images, labels, rng).flatten(2)
    here = (slopes * images.flatten(2)).sum(1)[:, :, None]
    promised = (torch.einsum("ncp,kc->npk", slopes, corners) - here).flatten(1)
    best = promised.topk(min(candidates, promised.shape[1])).indices
    return best // len(corners), corners[best % len(corners)]


def painted(
    images: Images, places: Int[Tensor, "n tries"], colours: Float[Tensor, "n tries c"]
) -> Float[Tensor, "n tries c h w"]:
    """Each image once for each try, with the pixel at that place in that colour."""
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

    def shown(genes: Tensor) -> tuple[Tensor, Tensor]:
        rows, columns = (
            (genes[..., axis] * side).long().clamp(max=side - 1) for axis, side in enumerate((height, width))
        )
        return rows * width + columns, genes[..., 2:]

    fitness = _losses(network, painted(images, *shown(genes)), labels, rng)
    for generation in range(GENERATIONS):
        order = rng.derive(f"generation {generation}").permutations(POPULATION)[..., None].expand_as(genes)
        first, second, third = (genes.gather(1, order.roll(shift, 1)) for shift in range(3))
        children = (first + 0.5 * (second - third)).clamp(0, 1)
        found = _losses(network, painted(images, *shown(children)), labels, rng)
        better = found > fitness
        genes = torch.where(better[..., None], children, genes)
        fitness = torch.where(better, found, fitness)
    best = fitness.argmax(1)
    places, colours = shown(genes[torch.arange(len(images), device=images.device), best][:, None])
    return painted(images, places, colours)[:, 0]
