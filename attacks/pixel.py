"""One or a few pixels found by differential evolution (Su, Vargas, Sakurai 2019, arXiv 1710.08864).

An individual is `pixels` × (row, column, colour), a point of the unit cube. Each generation makes one child for each
individual, and the better of the two stays:

    child_i = base + weight · (x_a − x_b),      base = the best individual, or x_c;   i, a, b, c all different

Colours lie on the 8-bit grid, 0 and 255 and every border pixel included. Two genes may name one pixel: at most
`pixels` change. The search ends for an image as soon as any individual reaches the goal, and the best individual is
returned where none does.

The preset `su2019` is the paper's setting for its ImageNet experiment (untargeted) and for CIFAR (targeted; its
untargeted rates there count an image if any of the nine targets is reached: run all targets for that). `hyperparticle`
is the setting of the widespread reimplementation of that name: SciPy's `best1bin` with dither. `apr` is that of the
adaptive-pixel-resilience paper: colours are added to the pixel's, and the length of the change costs; its crossover
and the weight of that cost are not printed there, 0.9 and 0.1 are ours.

Departures. A child that reaches the goal beats one that does not, whatever their losses; equal losses count as better.
Where the model is random, the best individual is asked about again in each generation (one query more), its loss is
replaced by the fresh one, and only success in both counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from bench.contracts import Attack, Goal, Images, Model, Pixels, Streams

from ._coding import Coding
from ._evolution import Bounds, Genes, Population, Strategy, children, inside, latin, uniform
from ._variants import ask, check_pixels


@dataclass(frozen=True)
class Pixel(Attack):
    """One or a few pixels, found by differential evolution from scores alone.

    Attributes:
        pixels: how many pixels may change, 1 or more.
        population: individuals of each image, 4 or more; one query each.
        generations: how often they have children, 0 or more; `population` queries each.
        strategy: children around the best individual, or around a random one.
        weight: of the difference in a child, drawn from low:high for each generation, within (0, 2].
        crossover: chance of a gene to come from the mutant and not from the parent, in [0, 1]; 1 is no crossover.
        start: positions and colours uniform; a Latin hypercube; or `normal`: colours from N(128, 127²) on 0 … 255.
        bounds: genes that leave the cube are clipped, reflected or drawn anew.
        loss: `margin` between logits, or `probability` of the class to avoid or to reach.
        change_weight: cost of the Euclidean length of the change (values in [0, 1]), 0 or more.
        stop: at the first success, or once it is `confident`: p(target) > 0.9, or p(label) < 0.05.
        eight_bit: colours are multiples of 1/255.
        additive: colours are added to the pixel's own and clipped; else they replace it.
        cluster: all pixels lie in one 3×3 window, which filters against lone pixels handle worse.
    """

    pixels: int = 1
    population: int = 400
    generations: int = 75
    strategy: Strategy = "best1"
    weight: tuple[float, float] = (0.5, 1.0)
    crossover: float = 1.0
    start: Literal["uniform", "latin", "normal"] = "latin"
    bounds: Bounds = "resample"
    loss: Literal["margin", "probability"] = "margin"
    change_weight: float = 0.0
    stop: Literal["success", "confident"] = "success"
    eight_bit: bool = True
    additive: bool = False
    cluster: bool = False

    title = "N-pixel (DE)"
    paper = "Su, Vargas, Sakurai, One Pixel Attack for Fooling Deep Neural Networks, arXiv 1710.08864"
    _su2019: ClassVar[Mapping[str, Any]] = {
        "generations": 100,
        "strategy": "rand1",
        "weight": (0.5, 0.5),
        "start": "normal",
        "bounds": "clip",
        "loss": "probability",
        "stop": "confident",
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"population": 50, "generations": 12},
        "paper": _su2019,
        "su2019": _su2019,
        "hyperparticle": {"loss": "probability"},
        "apr": {
            "generations": 100,
            "strategy": "rand1",
            "weight": (0.5, 0.5),
            "crossover": 0.9,
            "start": "uniform",
            "bounds": "clip",
            "loss": "probability",
            "change_weight": 0.1,
            "additive": True,
        },
    }
    access = "scores"

    def __post_init__(self) -> None:
        check_pixels(self.pixels)
        if self.population < 4:
            raise ValueError(f"population is 4 or more, so that there are three strangers; got {self.population}.")
        if self.generations < 0:
            raise ValueError(f"generations is 0 or more; got {self.generations}.")
        if not 0 < self.weight[0] <= self.weight[1] <= 2:
            raise ValueError(f"weight is low:high with 0 < low <= high <= 2, such as 0.5:1; got {self.weight}.")
        if not 0 <= self.crossover <= 1:
            raise ValueError(f"crossover is a chance in [0, 1]; got {self.crossover}.")
        if self.change_weight < 0:
            raise ValueError(f"change_weight is 0 or more; got {self.change_weight}.")
        if self.stop == "confident" and (self.loss != "probability" or self.change_weight):
            raise ValueError("stop=confident reads probabilities: it needs loss=probability and change_weight=0.")

    @property
    def budget(self) -> Pixels:
        """That many pixels, freely."""
        return Pixels(self.pixels)

    @torch.no_grad()
    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The first success of each image, or the best individual."""
        adversarial, rows = images.clone(), torch.arange(len(images), device=images.device)
        parents = self._judged(model, images, goal, self._first(rng, images))
        for generation in range(self.generations + 1):
            parents, elite = self._doubted(model, images, goal, parents)
            leaving = self._content(goal, elite) | torch.full_like(elite.reached[:, 0], generation == self.generations)
            adversarial[rows[leaving]] = self._coding.painted(images[leaving], elite[leaving].genes)[:, 0]
            model[leaving].note("unconverged", ~elite.reached[leaving, 0])
            stay = ~leaving
            rows, images, parents = rows[stay], images[stay], parents[stay]
            model, goal, rng = model[stay], goal[stay], rng[stay]
            if not len(rows):
                break
            young = children(rng, parents.genes, parents.best(), self.strategy, self.weight, self.crossover)
            parents = parents.improved(self._judged(model, images, goal, inside(rng, young, self.bounds)))
            model.progress((generation + 1) / self.generations)
        return adversarial

    @property
    def _coding(self) -> Coding:
        return Coding(self.pixels, self.eight_bit, self.additive, self.cluster)

    def _first(self, rng: Streams, images: Images) -> Genes:
        size = 2 + images.shape[1]
        genes = (latin if self.start == "latin" else uniform)(rng, self.population, self.pixels * size)
        if self.start == "normal":
            colours = genes.view(len(rng), self.population, self.pixels, size)[..., 2:]
            colours.copy_(((rng.normal(*colours.shape[1:]) * 127 + 128) / 256).clamp(0, 1))
        return genes

    def _judged(self, model: Model, images: Images, goal: Goal, genes: Genes) -> Population:
        losses, reached = ask(
            model,
            images,
            goal,
            Goal.margin if self.loss == "margin" else _probability,
            genes.shape[1],
            lambda part: self._coding.painted(images[part], genes[part]),
        )
        if self.change_weight:
            losses = losses + self.change_weight * self._coding.change(images, genes)
        return Population(genes, losses, reached)

    def _doubted(self, model: Model, images: Images, goal: Goal, parents: Population) -> tuple[Population, Population]:
        """The parents, and the best of each image alone; of a random model the best has its second answer."""
        elite = parents.pick(parents.best())
        if model.classifier.random:
            again = self._judged(model, images, goal, elite.genes)
            elite = Population(elite.genes, again.losses, again.reached & elite.reached)
            parents = parents.place(parents.best(), elite)
        return parents, elite

    def _content(self, goal: Goal, elite: Population) -> Bool[Tensor, "n"]:
        """Which images need no more search."""
        reached, loss = elite.reached[:, 0], elite.losses[:, 0]
        if self.stop == "success":
            return reached
        return reached & (loss < (0.05 if goal.targets is None else -0.9))


def _probability(goal: Goal, logits: Tensor) -> Tensor:
    """Probability of the class to avoid, or minus that of the class to reach."""
    likelihood = goal.cross_entropy(logits)
    return likelihood.exp() if goal.targets is None else -(-likelihood).exp()
