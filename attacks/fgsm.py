"""FGSM: one step of fixed size along the sign of the input gradient (Goodfellow et al. 2015, arXiv 1412.6572).

    x' = clip(x − eps · sign(∇ loss(x)), 0, 1)

where the attacker minimises the loss: −cross-entropy of the true class, or the cross-entropy of the target class.
Only correctly classified images are attacked, so labels and predictions agree. The preset `paper` is the larger eps
with which Himbitski et al. test defenses.

On a CPU, the results equal those of foolbox and ART bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import Attack, Goal, Images, Linf, Model, Streams

from ._steps import LinfBall, Loss, input_gradient


@dataclass(frozen=True)
class FGSM(Attack):
    """One step along the sign of the gradient.

    Attributes:
        eps: step size for each value, as a share of the range [0, 1].
        loss: `cross-entropy` as in the paper, or `margin`, whose gradient does not vanish on confident predictions.
    """

    eps: float = 8 / 255
    loss: Loss = "cross-entropy"

    title = "FGSM"
    paper = "Goodfellow, Shlens, Szegedy, Explaining and Harnessing Adversarial Examples, arXiv 1412.6572"
    presets = {"quick": {}, "paper": {"eps": 0.01}}
    access = "gradients"
    family = "sign"
    steps = 1

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1:
            raise ValueError(f"Expected eps from 0 to 1, such as 8/255, but got {self.eps}.")

    @property
    def budget(self) -> Linf:
        """Every value moves by at most eps."""
        return Linf(self.eps)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The step; nothing is random."""
        gradient, _ = input_gradient(model, images, goal, self.loss)
        return LinfBall(self.eps).descend(images, images, gradient, self.eps)
