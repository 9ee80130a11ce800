"""Differential evolution (Storn and Price 1997) in the unit cube, for the populations of all images at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.contracts import Streams

from ._variants import best_of, better

Genes = Float[Tensor, "n p g"]
Strategy = Literal["best1", "rand1"]
Bounds = Literal["clip", "reflect", "resample"]


@dataclass(frozen=True)
class Population:
    """The individuals of each image, the loss of each, and whether it reaches the goal."""

    genes: Genes
    losses: Float[Tensor, "n p"]
    reached: Bool[Tensor, "n p"]

    def __getitem__(self, rows: Tensor) -> Population:
        return Population(self.genes[rows], self.losses[rows], self.reached[rows])

    def best(self) -> Int[Tensor, "n 1"]:
        """Index of each image's best individual."""
        return best_of(self.losses, self.reached)

    def pick(self, index: Int[Tensor, "n 1"]) -> Population:
        """Populations of one: for each image the individual with this index."""
        return Population(_pick(self.genes, index), self.losses.gather(1, index), self.reached.gather(1, index))

    def place(self, index: Int[Tensor, "n 1"], one: Population) -> Population:
        """With the answers of this individual replaced by those of `one`."""
        losses, reached = self.losses.scatter(1, index, one.losses), self.reached.scatter(1, index, one.reached)
        return Population(self.genes, losses, reached)

    def improved(self, young: Population) -> Population:
        """Each child against its parent."""
        won = better(young.losses, young.reached, self.losses, self.reached)
        return Population(
            torch.where(won[..., None], young.genes, self.genes),
            torch.where(won, young.losses, self.losses),
            torch.where(won, young.reached, self.reached),
        )


def uniform(rng: Streams, population: int, genes: int) -> Genes:
    """Independent and uniform."""
    return rng.uniform(population, genes)


def latin(rng: Streams, population: int, genes: int) -> Genes:
    """A Latin hypercube: along each gene, one individual in each of `population` equal intervals."""
    interval = rng.uniform(genes, population).argsort(dim=2, stable=True).transpose(1, 2)
    return (interval + rng.uniform(population, genes)) / population


def children(
    rng: Streams,
    parents: Genes,
    best: Int[Tensor, "n 1"],
    strategy: Strategy,
    weight: tuple[float, float],
    crossover: float,
) -> Genes:
    """One child for each parent, anywhere: base + weight · (one − another), crossed with the parent gene by gene.

    Args:
        rng: one stream for each image.
        parents: a population for each image.
        best: index of each image's best individual.
        strategy: the base is the best individual, or a random one.
        weight: drawn between these for each image and generation.
        crossover: chance of a gene to come from the mutant; at least one always does.
    """
    size, genes = parents.shape[1:]
    one, another, *base = _strangers(rng, size, 2 if strategy == "best1" else 3).unbind(2)
    bases = _pick(parents, best if strategy == "best1" else base[0])
    factor = rng.uniform(1, 1, low=weight[0], high=weight[1])
    mutants = bases + factor * (_pick(parents, one) - _pick(parents, another))
    if crossover == 1:
        return mutants
    crossed = rng.uniform(size, genes) < crossover
    crossed.scatter_(2, rng.integers(genes, size, 1), True)
    return torch.where(crossed, mutants, parents)


def inside(rng: Streams, genes: Genes, bounds: Bounds) -> Genes:
    """Genes outside [0, 1] are moved to the nearest end, mirrored at it, or drawn anew."""
    if bounds == "clip":
        return genes.clamp(0, 1)
    if bounds == "reflect":
        return 1 - (1 - genes.remainder(2)).abs()
    return torch.where((genes < 0) | (genes > 1), rng.uniform(*genes.shape[1:]), genes)


def _strangers(rng: Streams, size: int, count: int) -> Int[Tensor, "n p count"]:
    """For each individual `count` others, all different."""
    offsets = torch.empty(len(rng), size, 0, dtype=torch.int64, device=rng.device)
    for taken in range(count):
        offset = rng.integers(size - 1 - taken, size)
        for earlier in offsets.sort(2).values.unbind(2):
            offset = offset + (offset >= earlier)
        offsets = torch.cat([offsets, offset[..., None]], 2)
    return (torch.arange(size, device=rng.device)[:, None] + 1 + offsets) % size


def _pick(parents: Genes, index: Int[Tensor, "n q"]) -> Float[Tensor, "n q g"]:
    """The individuals with these indices, for each image."""
    return parents.gather(1, index[..., None].expand(-1, -1, parents.shape[2]))
