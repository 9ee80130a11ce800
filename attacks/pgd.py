"""PGD: I-FGSM from random starts, in an L∞ or an L2 ball (Madry et al. 2018, arXiv 1706.06083).

    x_0 = a random image in the ball,   x_{t+1} = project(x_t − step_size · direction(∇ loss(x_t)))

`direction` is the sign for L∞ and the gradient at length 1 for L2. Departures: of all images on the way, over all
restarts, the one with the lowest margin is kept, which costs nothing and is never weaker; an image that is done is
not started again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from bench.contracts import L2, Attack, Goal, Images, Labels, Linf, Model, Streams

from ._steps import Best, L2Ball, LinfBall, Loss, check_steps, input_gradient, step_length


@dataclass(frozen=True)
class PGD(Attack):
    """I-FGSM from random starts, in an L∞ or an L2 ball.

    Attributes:
        eps: how far an image may move: each value for `linf`, the whole image for `l2` (values in [0, 1]).
        norm: `linf` or `l2`.
        steps: how many steps a start takes, 1 or more.
        step_size: how far a step moves, measured as eps is; none: 2.5 · eps / steps, but at most eps.
        restarts: how many random starts, 1 or more.
        loss: `cross-entropy` as in the paper, or `margin`, whose gradient does not vanish where the model is sure.
    """

    eps: float = 8 / 255
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 40
    step_size: float | None = None
    restarts: int = 1
    loss: Loss = "cross-entropy"

    title = "PGD"
    paper = "Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv 1706.06083"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 10},
        "paper": {"steps": 20, "step_size": 2 / 255, "restarts": 10},
        "l2": {"norm": "l2", "eps": 0.5},
    }
    access = "gradients"

    def __post_init__(self) -> None:
        check_steps(self.eps, self.steps, self.step_size)
        if self.restarts < 1:
            raise ValueError(f"restarts is at least 1; got {self.restarts}.")

    @property
    def budget(self) -> Linf | L2:
        """The ball."""
        return Linf(self.eps) if self.norm == "linf" else L2(self.eps)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The best images of all starts."""
        best = Best(images)
        rows = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            part, start = model[rows], rng[rows].derive(restart)
            late = self._descend(part, images[rows], goal[rows], start, best, rows, restart)
            rows, late = rows[open_ := best.scores[rows] >= 0], late[open_]
            if not len(rows):
                break
        unconverged = torch.zeros(len(images), device=images.device)
        unconverged[rows] = late.float()
        model.note("unconverged", unconverged)
        return best.images

    def _descend(
        self, model: Model, images: Images, goal: Goal, rng: Streams, best: Best, rows: Labels, restart: int
    ) -> torch.Tensor:
        """One start; returns for which images the very last step was the best so far."""
        ball = LinfBall(self.eps) if self.norm == "linf" else L2Ball(self.eps)
        length = step_length(self.eps, self.steps, self.step_size)
        adversarial = ball.start(images, rng)
        for step in range(self.steps):
            gradient, logits = input_gradient(model, adversarial, goal, self.loss)
            best.offer(rows, adversarial, goal.margin(logits))
            adversarial = ball.descend(adversarial, images, gradient, length)
            model.progress((restart + (step + 1) / self.steps) / self.restarts)
        return best.offer(rows, adversarial, goal.margin(model(adversarial)))
