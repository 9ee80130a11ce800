"""Attacks of foolbox (Rauber et al., JOSS 2020): C&W (arXiv 1608.04644), DeepFool (arXiv 1511.04599), or any by name.

foolbox looks for the smallest change, or for one within a given size. Both are told as ours are: a success counts
only within `eps`. A change that is longer is shortened to it, as foolbox itself does, and kept where it still reaches
the goal; otherwise the original comes back (foolbox's C&W returns black images where it finds nothing).

These attacks draw from global random numbers, which are seeded from the streams of the batch and put back
afterwards: results can be repeated, and depend on how the images are batched.
"""

from __future__ import annotations

import inspect
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bench.contracts import L2, Budget, Goal, Images, NotApplicableError, Pixels

from ._borrowed import AsModule, Borrowed, budget_of, read_settings


def _foolbox() -> Any:
    with warnings.catch_warnings():  # it imports a SciPy name that is deprecated
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
    def _made(self) -> Any:
        """The attack object of foolbox; raises ValueError where its parameters are wrong."""

    def run(self, network: AsModule, images: Images, goal: Goal) -> Images:
        """Calls foolbox once for the batch."""
        foolbox = _foolbox()
        attack = self._made()
        minimises = isinstance(attack, foolbox.attacks.base.MinimizationAttack)
        size = None if isinstance(self.budget, Pixels) else self.eps
        wrapped = foolbox.PyTorchModel(network, bounds=(0, 1), device=images.device)
        if goal.targets is None:
            criterion = foolbox.criteria.Misclassification(goal.labels)
        else:
            criterion = foolbox.criteria.TargetedMisclassification(goal.targets)
            if isinstance(attack, foolbox.attacks.deepfool.DeepFoolAttack):  # takes it and ignores it
                raise self._untargeted_only()
        try:
            _, found, success = attack(wrapped, images, criterion, epsilons=size)
        except ValueError as error:
            if "unsupported criterion" in str(error):
                raise self._untargeted_only() from error
            raise
        best: Tensor = torch.where(success[:, None, None, None], found, images) if minimises else found
        return best

    def _untargeted_only(self) -> NotApplicableError:
        return NotApplicableError(
            f"Expected an untargeted goal for {self}, but got a targeted one, which foolbox does not offer for it. "
            "Choose another attack (such as cw), or leave the target out."
        )


@dataclass(frozen=True)
class CarliniWagner(_OfFoolbox):
    """The smallest L2 change that misleads, by Adam on margin and length (C&W L2).

    Attributes:
        eps: the largest L2 length that counts as success, > 0, values in [0, 1].
        steps: steps of Adam for each weight of the margin, ≥ 1.
        searches: steps of the binary search for that weight, ≥ 1.
        step_size: learning rate of Adam, > 0.
        confidence: margin (in logits) that a success must have, ≥ 0.
        first_weight: the weight of the margin that the search starts with, > 0.
    """

    eps: float = 0.5
    steps: int = 200
    searches: int = 6
    step_size: float = 0.01
    confidence: float = 0.0
    first_weight: float = 0.1

    title = "C&W L2"
    paper = "Carlini & Wagner 2017, Towards Evaluating the Robustness of Neural Networks, arXiv 1608.04644"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
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
        """A change of that length."""
        return L2(self.eps)

    def _made(self) -> Any:
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
        norm: in which the change is small: l2 or linf.
        eps: the largest change that counts as success, > 0, values in [0, 1].
        steps: linearisations at the most, ≥ 1.
        candidates: how many of the likeliest classes are tried, ≥ 2.
        overshoot: how far beyond the boundary, as a share of the way, ≥ 0.
    """

    norm: Literal["l2", "linf"] = "l2"
    eps: float = 0.5
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    title = "DeepFool"
    paper = "Moosavi-Dezfooli, Fawzi & Frossard 2016, DeepFool, arXiv 1511.04599"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"steps": 20, "candidates": 5}, "paper": {}}

    def __post_init__(self) -> None:
        if self.steps < 1 or self.candidates < 2 or self.overshoot < 0:
            raise ValueError(
                "Expected steps ≥ 1, candidates ≥ 2 and overshoot ≥ 0, but got "
                f"{self.steps}, {self.candidates} and {self.overshoot}."
            )
        super().__post_init__()

    @property
    def budget(self) -> Budget:
        """Of the chosen norm."""
        return budget_of(self.norm, self.eps)

    def _made(self) -> Any:
        foolbox = _foolbox()
        kind = {"l2": foolbox.attacks.L2DeepFoolAttack, "linf": foolbox.attacks.LinfDeepFoolAttack}[self.norm]
        return kind(steps=self.steps, candidates=self.candidates, overshoot=self.overshoot)


@dataclass(frozen=True)
class Foolbox(_OfFoolbox):
    """Any attack of foolbox by its name there, held to a budget of ours.

    Attributes:
        attack: the name in foolbox.attacks, such as LinfPGD, L2FMNAttack or SaltAndPepperNoiseAttack.
        norm: what is audited: linf, l2 or pixels.
        eps: the budget: largest value (linf) or length (l2) of a change, values in [0, 1], > 0; or a number of pixels.
        settings: arguments of foolbox's class, such as "steps=100;rel_stepsize=0.03".
    """

    attack: str = "LinfPGD"
    norm: Literal["linf", "l2", "pixels"] = "linf"
    eps: float = 8 / 255
    settings: str = ""

    title = "foolbox"
    paper = "Rauber et al. 2020, Foolbox Native, JOSS 5(53)"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"settings": "steps=20"},
        "l0-fmn": {"attack": "L0FMNAttack", "norm": "pixels", "eps": 50.0, "settings": "steps=200"},
        "salt-and-pepper": {"attack": "SaltAndPepperNoiseAttack", "norm": "pixels", "eps": 50.0},
    }

    def __post_init__(self) -> None:
        if self.norm == "pixels" and (self.eps < 1 or self.eps != int(self.eps)):
            raise ValueError(f"Expected a whole number of pixels for eps, but got {self.eps}.")
        super().__post_init__()
        self._made()

    @property
    def budget(self) -> Budget:
        """Of the chosen norm."""
        return budget_of(self.norm, self.eps)

    def _made(self) -> Any:
        foolbox = _foolbox()
        kind = getattr(foolbox.attacks, self.attack, None)
        if not (inspect.isclass(kind) and issubclass(kind, foolbox.attacks.Attack)):
            raise ValueError(
                f"Expected the name of an attack in foolbox.attacks, such as LinfPGD, but got {self.attack!r}."
            )
        return kind(**read_settings(self.settings, kind))
