"""Attacks of ART (Nicolae et al., arXiv 1807.01069): JSMA (Papernot et al., arXiv 1511.07528), or any by name.

JSMA is ART's version: each step adds `theta` to the two values with the largest derivative of the target class (the
paper's map also considers the other classes). ART counts the values of all channels, we count pixels. At most as many
values change as the budget has pixels, so on colour images the attack does not use the whole budget. For an
untargeted goal the target is the likeliest wrong class (ART draws it at random).

These attacks draw from the global random generators, which are seeded from the streams of the batch and restored
afterwards: results are reproducible, but depend on how the images are batched. ART's patch attacks are not offered,
since they do not clear the gradient of the patch between steps.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.contracts import Budget, Goal, Images, Labels, NotApplicableError, Pixels

from ._borrowed import AsModule, Borrowed, budget_of, read_settings
from ._variants import check_room


class _OfArt(Borrowed):
    access = "gradients"

    @abstractmethod
    def _build(self, estimator: Any, images: Images, goal: Goal) -> Any:
        """ART's attack object."""

    def _classes(self, network: AsModule, images: Images, goal: Goal) -> Labels:
        """The classes passed to ART: the targets or, untargeted, the labels."""
        return goal.labels if goal.targets is None else goal.targets

    def run(self, network: AsModule, images: Images, goal: Goal) -> Images:
        """Calls ART once for the batch."""
        from art.estimators.classification import PyTorchClassifier

        estimator = PyTorchClassifier(
            network,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=network.num_classes,
            clip_values=(0.0, 1.0),
            device_type="cpu" if images.device.type == "cpu" else "gpu",
        )
        attack = self._build(estimator, images, goal)
        classes = self._classes(network, images, goal)
        return torch.from_numpy(attack.generate(x=images.float().cpu().numpy(), y=classes.cpu().numpy()))


@dataclass(frozen=True)
class JSMA(_OfArt):
    """Repeatedly raises the two values that favour the target class most (JSMA).

    Attributes:
        pixels: how many values, and thus at most how many pixels, may change, ≥ 2.
        theta: what a step adds to a value, in (0, 1]; 1 makes it white at once.
    """

    pixels: int = 20
    theta: float = 1.0

    title = "JSMA"
    paper = "Papernot et al. 2016, The Limitations of Deep Learning in Adversarial Settings, arXiv 1511.07528"
    presets = {"quick": {"pixels": 10}, "paper": {"pixels": 112}}

    def __post_init__(self) -> None:
        if self.pixels < 2 or not 0 < self.theta <= 1:
            raise ValueError(
                "Expected pixels ≥ 2 (each step changes two values) and theta in (0, 1], but got "
                f"{self.pixels} and {self.theta}."
            )

    @property
    def budget(self) -> Budget:
        """So many pixels, changed freely."""
        return Pixels(self.pixels)

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError if the image has fewer pixels."""
        check_room(self.pixels, image_shape)

    def _build(self, estimator: Any, images: Images, goal: Goal) -> Any:
        from art.attacks.evasion import SaliencyMapMethod

        # ART continues while the share of changed values is at most gamma, and then changes two more.
        gamma = (self.pixels - 1.5) / images[0].numel()
        return SaliencyMapMethod(estimator, theta=self.theta, gamma=gamma, batch_size=len(images), verbose=False)

    def _classes(self, network: AsModule, images: Images, goal: Goal) -> Labels:
        if goal.targets is not None:
            return goal.targets
        with torch.no_grad():
            logits: Tensor = network(images)
        return logits.scatter(1, goal.labels[:, None], -torch.inf).argmax(1)


@dataclass(frozen=True)
class Art(_OfArt):
    """Any attack of ART by its name there, held to one of our budgets.

    Attributes:
        attack: a name in art.attacks.evasion, such as AutoProjectedGradientDescent, ElasticNet or HopSkipJump.
        norm: the norm of the budget: linf, l2 or pixels.
        eps: the budget: largest value (linf) or length (l2) of a change, > 0, values in [0, 1]; or a pixel count.
            ART's own eps is one of the settings.
        settings: arguments for ART's class, such as "eps=0.03;eps_step=0.01;max_iter=20".
    """

    attack: str = "ProjectedGradientDescentPyTorch"
    norm: Literal["linf", "l2", "pixels"] = "linf"
    eps: float = 8 / 255
    settings: str = "eps=0.03137254901960784;eps_step=0.00784313725490196;max_iter=20"

    title = "ART"
    paper = "Nicolae et al. 2018, Adversarial Robustness Toolbox, arXiv 1807.01069"
    presets = {"quick": {}}

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"Expected eps > 0, but got {self.eps}.")
        if self.norm == "pixels" and self.eps != int(self.eps):
            raise ValueError(f"Expected a whole number of pixels for eps, but got {self.eps}.")
        read_settings(self.settings, self._class())

    @property
    def budget(self) -> Budget:
        """`eps` in the chosen norm."""
        return budget_of(self.norm, self.eps)

    def _class(self) -> type[Any]:
        from art.attacks import EvasionAttack, evasion

        chosen = getattr(evasion, self.attack, None)
        if not (inspect.isclass(chosen) and issubclass(chosen, EvasionAttack)):
            raise ValueError(f"Expected the name of an attack in art.attacks.evasion, but got {self.attack!r}.")
        return chosen

    def _build(self, estimator: Any, images: Images, goal: Goal) -> Any:
        chosen = self._class()
        known = inspect.signature(chosen).parameters
        ours = {"verbose": False, "batch_size": len(images), "targeted": goal.targets is not None}
        if goal.targets is not None and "targeted" not in known:
            raise NotApplicableError(
                f"Expected an untargeted goal for ART's {self.attack}, but got a targeted one. Choose another attack "
                "(such as jsma), or omit the target."
            )
        arguments = {name: value for name, value in ours.items() if name in known}
        return chosen(estimator, **{**arguments, **read_settings(self.settings, chosen)})
