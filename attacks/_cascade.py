"""Several attacks in turn, each on the images that none before it fooled: what falls early costs little.

The note "stage" says which stage fooled an image first, counted from 0; an image that none fooled has no such note.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.contracts import Attack, Budget, Goal, Images, Labels, Model, Streams

from ._steps import Best


@dataclass(frozen=True)
class Stage:
    """One attack of a cascade.

    Attributes:
        attack: within the cascade's budget.
        towards: 0 for the goal itself; r for the r-th likeliest wrong class of the best image so far as the target.
    """

    attack: Attack
    towards: int = 0


class Cascade(Attack):
    """Several attacks in turn; a subclass says which."""

    @property
    @abstractmethod
    def stages(self) -> tuple[Stage, ...]:
        """The attacks, the cheapest first."""

    def components(self) -> tuple[Attack, ...]:
        """The attacks of all stages."""
        return tuple(stage.attack for stage in self.stages)

    @property
    def budget(self) -> Budget:
        """That of its first stage; the others keep it too."""
        return self.stages[0].attack.budget

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises what a stage raises."""
        for stage in self.stages:
            stage.attack.check(image_shape, num_classes)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """For each image the first success, or else the attempt with the lowest margin."""
        # A targeted goal has its class already, and no stage can aim at a class that is not there.
        aims = 1 if goal.targets is not None else model.num_classes
        stages = [(number, stage) for number, stage in enumerate(self.stages) if stage.towards < aims]
        best, rows = Best(images), torch.arange(len(images), device=images.device)
        broken_by = images.new_full((len(images),), torch.nan)
        for turn, (number, stage) in enumerate(stages):
            part, wanted = model[rows], goal[rows]
            part.progress = part_of(model.progress, turn, len(stages))
            aim = wanted if not stage.towards else _aimed(part, best.images[rows], wanted, stage.towards)
            adversarial = stage.attack.perturb(part, images[rows], aim, rng[rows].derive(f"stage {number}"))
            with torch.no_grad():
                logits = part(adversarial)
            reached = wanted.reached(logits)
            # Below every margin: a success of a random model need not have a margin below zero.
            best.offer(rows, adversarial, wanted.margin(logits).masked_fill(reached, -torch.inf))
            broken_by[rows[reached]] = number
            rows = rows[~reached]
            if not len(rows):
                break
        model.note("stage", broken_by)
        return best.images


def part_of(progress: Callable[[float], None], turn: int, turns: int) -> Callable[[float], None]:
    """The progress callback of one of several turns: it takes the share of that turn that is done."""
    return lambda share: progress((turn + share) / turns)


def _aimed(model: Model, images: Images, goal: Goal, rank: int) -> Goal:
    """A targeted goal: for each image the wrong class of this rank, 1 being the likeliest."""
    with torch.no_grad():
        logits: Tensor = model(images).reshape(model.draws, len(images), -1).mean(0)
    others = logits[:, : model.num_classes].scatter(1, goal.labels[:, None], -torch.inf)
    targets: Labels = others.topk(rank, dim=1).indices[:, rank - 1]
    return Goal(goal.labels, targets, goal.rejects)
