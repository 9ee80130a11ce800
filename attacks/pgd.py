"""PGD: I-FGSM from random starts, in an L∞ or an L2 ball (Madry et al. 2018, arXiv 1706.06083).

    x_0 = a random image in the ball,   x_{t+1} = project(x_t − step_size · direction(∇ loss(x_t)))

`direction` is the sign for L∞ and the gradient scaled to length 1 for L2. Departures: the result is the image with the
lowest margin of all steps and restarts, which costs nothing and is never weaker; images that have succeeded are not
restarted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from bench.contracts import L2, Attack, Goal, Images, Labels, Linf, Model, Streams

from ._steps import Best, L2Ball, LinfBall, Loss, check_steps, input_gradient, step_length


@dataclass(frozen=True)
class PGD(Attack):
    """I-FGSM from random starts, in an L∞ or an L2 ball.

    Attributes:
        eps: how far an image may move: each value for `linf`, the whole image for `l2` (values in [0, 1]).
        norm: `linf` or `l2`.
        steps: number of steps from each start, at least 1.
        step_size: how far a step moves, in the same norm as eps; none for 2.5 · eps / steps, but at most eps.
        restarts: number of random starts, at least 1.
        loss: `cross-entropy` as in the paper, or `margin`, whose gradient does not vanish on confident predictions.
    """

    eps: float = 8 / 255
    norm: Literal["linf", "l2"] = "linf"
    steps: int = 40
    step_size: float | None = None
    restarts: int = 1
    loss: Loss = "cross-entropy"

    title = "PGD"
    paper = "Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, arXiv 1706.06083"
    presets = {
        "quick": {"steps": 10},
        "paper": {"steps": 20, "step_size": 2 / 255, "restarts": 10},
        "l2": {"norm": "l2", "eps": 0.5},
    }
    access = "gradients"
    family = "sign"

    def __post_init__(self) -> None:
        check_steps(self.eps, self.steps, self.step_size)
        if self.restarts < 1:
            raise ValueError(f"Expected restarts ≥ 1, but got {self.restarts}.")

    @property
    def budget(self) -> Linf | L2:
        """The ball."""
        return Linf(self.eps) if self.norm == "linf" else L2(self.eps)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The best images of all starts."""
        best = Best(images)
        rows = torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            streams = rng[rows].derive(restart)
            late = self._descend(model[rows], images[rows], goal[rows], streams, best, rows, restart)
            left = best.scores[rows] >= 0
            rows, late = rows[left], late[left]
            if not len(rows):
                break
        unconverged = torch.zeros(len(images), device=images.device)
        unconverged[rows] = late.float()
        model.note("unconverged", unconverged)
        return best.images

    def _descend(
        self, model: Model, images: Images, goal: Goal, rng: Streams, best: Best, rows: Labels, restart: int
    ) -> torch.Tensor:
        """The descent from one start; returns for which images the very last step was the best so far."""
        ball = LinfBall(self.eps) if self.norm == "linf" else L2Ball(self.eps)
        length = step_length(self.eps, self.steps, self.step_size)
        adversarial = ball.start(images, rng)
        for step in range(self.steps):
            gradient, logits = input_gradient(model, adversarial, goal, self.loss)
            best.offer(rows, adversarial, goal.margin(logits))
            adversarial = ball.descend(adversarial, images, gradient, length)
            model.progress((restart + (step + 1) / self.steps) / self.restarts)
        return best.offer(rows, adversarial, goal.margin(model(adversarial)))
