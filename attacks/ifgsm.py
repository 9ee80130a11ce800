"""I-FGSM, also called BIM: FGSM in small steps within a box (Kurakin et al. 2016, arXiv 1607.02533).

    x_0 = x,   x_{t+1} = clip(x + clip(x_t − step_size · sign(∇ loss(x_t)) − x, −eps, eps), 0, 1)

There is no random start; with one, it is `pgd`. As in foolbox and ART, the last images are the result, not the best
ones on the way. On a CPU, the results equal theirs bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import Attack, Goal, Images, Linf, Model, Streams

from ._steps import LinfBall, Loss, check_steps, input_gradient, step_length


@dataclass(frozen=True)
class IFGSM(Attack):
    """FGSM in small steps.

    Attributes:
        eps: how far each value may move, as a share of the range [0, 1].
        steps: number of steps, at least 1.
        step_size: how far a step moves each value; none for 2.5 · eps / steps, but at most eps.
        loss: `cross-entropy` as in the paper, or `margin`, whose gradient does not vanish on confident predictions.
    """

    eps: float = 8 / 255
    steps: int = 10
    step_size: float | None = None
    loss: Loss = "cross-entropy"

    title = "I-FGSM"
    paper = "Kurakin, Goodfellow, Bengio, Adversarial Examples in the Physical World, arXiv 1607.02533"
    presets = {"quick": {"steps": 5}, "paper": {"step_size": 1 / 255}}
    access = "gradients"
    family = "sign"

    def __post_init__(self) -> None:
        if self.eps > 1:
            raise ValueError(f"Expected eps from 0 to 1, such as 8/255, but got {self.eps}.")
        check_steps(self.eps, self.steps, self.step_size)

    @property
    def budget(self) -> Linf:
        """Every value moves by at most eps."""
        return Linf(self.eps)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The last images of the descent; nothing is random."""
        ball, adversarial = LinfBall(self.eps), images
        length = step_length(self.eps, self.steps, self.step_size)
        for step in range(self.steps):
            gradient, _ = input_gradient(model, adversarial, goal, self.loss)
            adversarial = ball.descend(adversarial, images, gradient, length)
            model.progress((step + 1) / self.steps)
        return adversarial
