"""FGSM: one step of fixed size along the sign of the input gradient (Goodfellow et al. 2015, arXiv 1412.6572).

    x' = clip(x − eps · sign(∇ loss(x)), 0, 1)

where the loss is the one that the attacker minimises: −cross-entropy of the true class, or the cross-entropy of the
target class. Only images that are classified rightly are attacked, so labels and predictions are the same here. The
preset `paper` is the larger eps of Himbitski et al., who test defenses with it.

The images equal those of foolbox and of ART bit for bit on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import Attack, Goal, Images, Linf, Model, Streams

from ._steps import LinfBall, Loss, input_gradient


@dataclass(frozen=True)
class FGSM(Attack):
    """One step along the sign of the gradient.

    Attributes:
        eps: size of the step for each value, as a share of the range [0, 1].
        loss: `cross-entropy` as in the paper, or `margin`, whose gradient does not vanish where the model is sure.
    """

    eps: float = 8 / 255
    loss: Loss = "cross-entropy"

    title = "FGSM"
    paper = "Goodfellow, Shlens, Szegedy, Explaining and Harnessing Adversarial Examples, arXiv 1412.6572"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}, "paper": {"eps": 0.01}}
    access = "gradients"

    def __post_init__(self) -> None:
        if not 0 <= self.eps <= 1:
            raise ValueError(f"eps is a share of the range, from 0 to 1, such as 8/255; got {self.eps}.")

    @property
    def budget(self) -> Linf:
        """Every value moves by at most eps."""
        return Linf(self.eps)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The step; draws nothing."""
        gradient, _ = input_gradient(model, images, goal, self.loss)
        return LinfBall(self.eps).descend(images, images, gradient, self.eps)
