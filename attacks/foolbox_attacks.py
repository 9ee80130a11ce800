"""Attacks of foolbox (Rauber et al., JOSS 2020): C&W (arXiv 1608.04644), DeepFool (arXiv 1511.04599), or any by name.

foolbox searches for the smallest change, or for one of a given size. Either way, a success counts only within `eps`.
A longer change is shortened to `eps`, as foolbox itself does, and kept if it still reaches the goal; otherwise the
original is returned (foolbox's C&W returns black images where it finds nothing).

These attacks draw from the global random generators, which are seeded from the streams of the batch and restored
afterwards: results are reproducible, but depend on how the images are batched.
"""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bench.contracts import L2, Budget, Goal, Images, NotApplicableError, Pixels

from ._borrowed import AsModule, Borrowed, budget_of, read_settings


def _foolbox() -> Any:
    with warnings.catch_warnings():  # foolbox imports a deprecated name of SciPy
        warnings.simplefilter("ignore", DeprecationWarning)
        import foolbox
    return foolbox


class _OfFoolbox(Borrowed):
    access = "gradients"
    eps: float

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"Expected eps > 0, but got {self.eps}.")

    @abstractmethod
    def _build(self) -> Any:
        """Foolbox's attack object; raises ValueError for wrong parameters."""

    def run(self, network: AsModule, images: Images, goal: Goal) -> Images:
        """Calls foolbox once for the batch."""
        foolbox = _foolbox()
        attack = self._build()
        minimises = isinstance(attack, foolbox.attacks.base.MinimizationAttack)
        size = None if isinstance(self.budget, Pixels) else self.eps
        wrapped = foolbox.PyTorchModel(network, bounds=(0, 1), device=images.device)
        if goal.targets is None:
            criterion = foolbox.criteria.Misclassification(goal.labels)
        else:
            criterion = foolbox.criteria.TargetedMisclassification(goal.targets)
            if isinstance(attack, foolbox.attacks.deepfool.DeepFoolAttack):  # accepts targets but ignores them
                raise self._untargeted_only()
        try:
            _, adversarial, success = attack(wrapped, images, criterion, epsilons=size)
        except ValueError as error:
            if "unsupported criterion" in str(error):
                raise self._untargeted_only() from error
            raise
        kept: Tensor = torch.where(success[:, None, None, None], adversarial, images) if minimises else adversarial
        return kept

    def _untargeted_only(self) -> NotApplicableError:
        return NotApplicableError(
            f"Expected an untargeted goal for {self}, but got a targeted one, which foolbox does not support here. "
            "Choose another attack (such as cw), or omit the target."
        )


@dataclass(frozen=True)
class CarliniWagner(_OfFoolbox):
    """The smallest L2 change that misleads the model, by Adam on margin and length (C&W L2).

    Attributes:
        eps: the largest L2 length that counts as a success, > 0, values in [0, 1].
        steps: steps of Adam for each weight of the margin, ≥ 1.
        searches: steps of the binary search for that weight, ≥ 1.
        step_size: learning rate of Adam, > 0.
        confidence: margin (in logits) that a success needs, ≥ 0.
        first_weight: first weight of the margin in that search, > 0.
    """

    eps: float = 0.5
    steps: int = 200
    searches: int = 6
    step_size: float = 0.01
    confidence: float = 0.0
    first_weight: float = 0.1

    title = "C&W L2"
    paper = "Carlini & Wagner 2017, Towards Evaluating the Robustness of Neural Networks, arXiv 1608.04644"
    presets = {
        "quick": {"steps": 40, "searches": 3, "step_size": 0.02, "first_weight": 1.0},
        "paper": {"steps": 10_000, "searches": 9, "first_weight": 0.001},
    }

    def __post_init__(self) -> None:
        if min(self.steps, self.searches) < 1 or min(self.step_size, self.first_weight) <= 0 or self.confidence < 0:
            raise ValueError(
                "Expected steps ≥ 1, searches ≥ 1, step_size > 0, first_weight > 0 and confidence ≥ 0, but got "
                f"{self.steps}, {self.searches}, {self.step_size}, {self.first_weight} and {self.confidence}."
            )
        super().__post_init__()

    @property
    def budget(self) -> Budget:
        """A change of at most that length."""
        return L2(self.eps)

    def _build(self) -> Any:
        foolbox = _foolbox()
        return foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=self.searches,
            steps=self.steps,
            stepsize=self.step_size,
            confidence=self.confidence,
            initial_const=self.first_weight,
        )


@dataclass(frozen=True)
class DeepFool(_OfFoolbox):
    """Steps to the nearest boundary of the linearised model (DeepFool); untargeted only.

    Attributes:
        norm: the norm of the change: l2 or linf.
        eps: the largest change that counts as a success, > 0, values in [0, 1].
        steps: largest number of linearisations, ≥ 1.
        candidates: how many of the likeliest classes are tried, ≥ 2.
        overshoot: how far to go beyond the boundary, as a share of the way, ≥ 0.
    """

    norm: Literal["l2", "linf"] = "l2"
    eps: float = 0.5
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    title = "DeepFool"
    paper = "Moosavi-Dezfooli, Fawzi & Frossard 2016, DeepFool, arXiv 1511.04599"
    presets = {"quick": {"steps": 20, "candidates": 5}, "paper": {}}

    def __post_init__(self) -> None:
        if self.steps < 1 or self.candidates < 2 or self.overshoot < 0:
            raise ValueError(
                "Expected steps ≥ 1, candidates ≥ 2 and overshoot ≥ 0, but got "
                f"{self.steps}, {self.candidates} and {self.overshoot}."
            )
        super().__post_init__()

    @property
    def budget(self) -> Budget:
        """`eps` in the chosen norm."""
        return budget_of(self.norm, self.eps)

    def _build(self) -> Any:
        attacks = _foolbox().attacks
        chosen = attacks.L2DeepFoolAttack if self.norm == "l2" else attacks.LinfDeepFoolAttack
        return chosen(steps=self.steps, candidates=self.candidates, overshoot=self.overshoot)


@dataclass(frozen=True)
class Foolbox(_OfFoolbox):
    """Any attack of foolbox by its name there, held to one of our budgets.

    Attributes:
        attack: a name in foolbox.attacks, such as LinfPGD, L2FMNAttack or SaltAndPepperNoiseAttack.
        norm: the norm of the budget: linf, l2 or pixels.
        eps: the budget: largest value (linf) or length (l2) of a change, > 0, values in [0, 1]; or a pixel count.
        settings: arguments for foolbox's class, such as "steps=100;rel_stepsize=0.03".
    """

    attack: str = "LinfPGD"
    norm: Literal["linf", "l2", "pixels"] = "linf"
    eps: float = 8 / 255
    settings: str = ""

    title = "foolbox"
    paper = "Rauber et al. 2020, Foolbox Native, JOSS 5(53)"
    presets = {
        "quick": {"settings": "steps=20"},
        "l0-fmn": {"attack": "L0FMNAttack", "norm": "pixels", "eps": 50.0, "settings": "steps=200"},
        "salt-and-pepper": {"attack": "SaltAndPepperNoiseAttack", "norm": "pixels", "eps": 50.0},
    }

    def __post_init__(self) -> None:
        if self.norm == "pixels" and (self.eps < 1 or self.eps != int(self.eps)):
            raise ValueError(f"Expected a whole number of pixels for eps, but got {self.eps}.")
        super().__post_init__()
        self._build()

    @property
    def budget(self) -> Budget:
        """`eps` in the chosen norm."""
        return budget_of(self.norm, self.eps)

    def _build(self) -> Any:
        attacks = _foolbox().attacks
        chosen = getattr(attacks, self.attack, None)
        if not (inspect.isclass(chosen) and issubclass(chosen, attacks.Attack)):
            raise ValueError(f"Expected the name of an attack in foolbox.attacks, but got {self.attack!r}.")
        return chosen(**read_settings(self.settings, chosen))
