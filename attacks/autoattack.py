"""AutoAttack and its parts APGD (both arXiv 2003.01690) and Square (arXiv 1912.00049), from pyautoattack.

AutoAttack is a sequence: each part attacks the images that the parts before it failed on. Parts, settings and order
are those of pyautoattack; on a deterministic model, the same images are broken as by its `run_standard_evaluation`.
Where nothing succeeds, it returns the original and we return the strongest attempt of the first part, since a random
model is judged on other draws than it was attacked on.

For a targeted goal, APGD and Square use the cross-entropy of the target class. The targeted DLR loss only compares
the target with the true class, so a third class may win. AutoAttack uses it where any wrong class will do, and has no
targeted form.

These attacks draw from the global random generators, which are seeded from the streams of the batch and restored
afterwards: results are reproducible, but depend on how the images are batched.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, cast

import torch
from torch import Tensor

from bench.contracts import L2, Budget, Goal, Images, Linf, MissingExtraError, NotApplicableError

from ._borrowed import AsModule, Borrowed, Run, in_turn

Norm = Literal["linf", "l2"]
Part = Literal["apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"]
_VERSIONS: dict[str, tuple[Part, ...]] = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
    "rand": ("apgd-ce", "apgd-dlr"),
}
_quiet = logging.getLogger(__name__)  # mutes the warning of zero gradients, which we count for each image anyway
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False


class _OfAutoAttack(Borrowed):
    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise ValueError(f"Expected eps > 0, but got {self.eps}.")

    @property
    def budget(self) -> Budget:
        """`eps` in the chosen norm."""
        return Linf(self.eps) if self.norm == "linf" else L2(self.eps)

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises MissingExtraError if the optional package is not installed."""
        if find_spec("pyautoattack") is None:
            raise MissingExtraError(f"The attack {self.title}", "autoattack")

    def _common(self, images: Images) -> dict[str, Any]:
        """The arguments common to all parts; the seed comes from torch's generator, which the batch has seeded."""
        norm = {"linf": "Linf", "l2": "L2"}[self.norm]
        return {"norm": norm, "eps": self.eps, "device": images.device, "seed": int(torch.randint(2**31 - 1, ()))}


@dataclass(frozen=True)
class APGD(_OfAutoAttack):
    """Projected gradient descent that halves its own step where progress stalls (APGD).

    Attributes:
        norm: linf or l2.
        eps: the largest change of a value (linf) or the length of the change (l2), > 0, values in [0, 1].
        loss: cross-entropy (ce) or the scale-free difference of logits ratio (dlr).
        steps: gradient steps of each run, ≥ 1.
        restarts: runs from random starts, ≥ 1; each attacks only the images that are left.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    loss: Literal["ce", "dlr"] = "ce"
    steps: int = 100
    restarts: int = 1

    title = "APGD"
    paper = "Croce & Hein 2020, Reliable Evaluation of Adversarial Robustness, arXiv 2003.01690"
    presets = {
        "quick": {"steps": 20},
        "paper": {"restarts": 5},
        "dlr": {"loss": "dlr"},
    }
    access = "gradients"
    family = "sign"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.steps, self.restarts) < 1:
            raise ValueError(f"Expected steps ≥ 1 and restarts ≥ 1, but got {self.steps} and {self.restarts}.")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises NotApplicableError for too few classes: DLR uses the third largest logit, targeted the fourth."""
        super().check(image_shape, num_classes)
        if self.loss == "dlr" and num_classes < 4:
            raise NotApplicableError(f"The DLR loss needs at least 4 classes, but the model has {num_classes}.")

    def run(self, network: AsModule, images: Images, goal: Goal) -> Images:
        """Each restart attacks the images that are left."""
        if goal.targets is not None and self.loss != "ce":
            raise NotApplicableError("Expected loss=ce for a targeted goal, but got loss=dlr, which is untargeted.")
        runs = [partial(_apgd, loss=self.loss, steps=self.steps, **self._common(images)) for _ in range(self.restarts)]
        return in_turn(runs, network, images, goal, self.budget)


@dataclass(frozen=True)
class Square(_OfAutoAttack):
    """Random squares, each kept where it lowers the margin; uses scores only (Square Attack).

    Attributes:
        norm: linf or l2.
        eps: the largest change of a value (linf) or the length of the change (l2), > 0, values in [0, 1].
        queries: largest number of forward passes for each image, ≥ 1.
        first_share: share of the image that the first squares cover, in (0, 1].
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    queries: int = 5000
    first_share: float = 0.8

    title = "Square"
    paper = "Andriushchenko et al. 2020, Square Attack, arXiv 1912.00049"
    presets = {"quick": {"queries": 500}, "paper": {"queries": 10_000}}
    access = "scores"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.queries < 1 or not 0 < self.first_share <= 1:
            raise ValueError(
                f"Expected queries ≥ 1 and first_share in (0, 1], but got {self.queries} and {self.first_share}."
            )

    def run(self, network: AsModule, images: Images, goal: Goal) -> Images:
        """One run; its schedule of sizes is scaled to `queries`."""
        return _square(network, images, goal, self.queries, self.first_share, **self._common(images))


@dataclass(frozen=True)
class AutoAttack(_OfAutoAttack):
    """APGD, targeted APGD, targeted FAB and Square in turn, each on the images left (AutoAttack); untargeted only.

    Attributes:
        norm: linf or l2.
        eps: the largest change of a value (linf) or the length of the change (l2), > 0, values in [0, 1].
        version: `standard`; `plus`, with more parts and restarts; or `rand` for random models: APGD on two losses
            with 20 draws per gradient (fewer if the model already averages over several).
        steps: gradient steps of each run, ≥ 1.
        queries: largest number of forward passes of Square for each image, ≥ 1.
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    version: Literal["standard", "plus", "rand"] = "standard"
    steps: int = 100
    queries: int = 5000

    title = "AutoAttack"
    paper = "Croce & Hein 2020, Reliable Evaluation of Adversarial Robustness, arXiv 2003.01690"
    presets = {
        "quick": {"steps": 20, "queries": 200},
        "paper": {},
        "rand": {"version": "rand"},
    }
    access = "gradients"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.steps, self.queries) < 1:
            raise ValueError(f"Expected steps ≥ 1 and queries ≥ 1, but got {self.steps} and {self.queries}.")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises NotApplicableError for fewer than four classes, which the targeted DLR loss needs."""
        super().check(image_shape, num_classes)
        if num_classes < 4:
            raise NotApplicableError(f"AutoAttack needs at least 4 classes, but the model has {num_classes}.")

    def run(self, network: AsModule, images: Images, goal: Goal) -> Images:
        """The parts in turn."""
        if goal.targets is not None:
            raise NotApplicableError(
                "Expected an untargeted goal for autoattack, but got a targeted one. Use apgd or square."
            )
        common = self._common(images)
        others = min(9, network.num_classes - 1)
        restarts = 5 if self.version == "plus" else 1
        draws = max(1, 20 // network.draws) if self.version == "rand" else 1
        parts: dict[Part, Run] = {
            "apgd-ce": partial(_apgd, loss="ce", steps=self.steps, draws=draws, **common),
            "apgd-dlr": partial(_apgd, loss="dlr", steps=self.steps, draws=draws, **common),
            "apgd-t": partial(_apgd_targeted, steps=self.steps, targets=others, **common),
            "fab": partial(_fab, steps=self.steps, restarts=restarts, **common),
            "fab-t": partial(_fab, steps=self.steps, restarts=1, targets=others, **common),
            "square": partial(_square, queries=self.queries, rescale=False, **common),
        }
        return in_turn([parts[name] for name in _VERSIONS[self.version]], network, images, goal, self.budget)


def _apgd(
    network: AsModule, images: Images, goal: Goal, loss: str, steps: int, draws: int = 1, **common: Any
) -> Images:
    """One run of APGD: its last success or, failing that, the point of highest loss."""
    from pyautoattack.autopgd_base import APGDAttack_targeted

    attack = APGDAttack_targeted(network, n_iter=steps, eot_iter=draws, logger=_quiet, **common)
    attack.loss, attack.y_target = (loss, None) if goal.targets is None else ("ce-targeted", goal.targets)
    attack.init_hyperparam(images)
    torch.manual_seed(attack.seed)
    highest, unreached, _, last = attack.attack_single_run(images, goal.labels)
    if goal.targets is not None:  # to the library, any wrong class is a success
        return cast("Tensor", highest)
    return torch.where(unreached.bool()[:, None, None, None], highest, last)


def _apgd_targeted(network: AsModule, images: Images, goal: Goal, steps: int, targets: int, **common: Any) -> Images:
    """APGD towards each of the likeliest wrong classes in turn."""
    from pyautoattack.autopgd_base import APGDAttack_targeted

    attack = APGDAttack_targeted(network, n_iter=steps, n_target_classes=targets, logger=_quiet, **common)
    return cast("Tensor", attack.perturb(images, goal.labels))


def _fab(
    network: AsModule, images: Images, goal: Goal, steps: int, restarts: int, targets: int | None = None, **common: Any
) -> Images:
    """FAB, the smallest change: towards each of the likeliest wrong classes or, without targets, the nearest one."""
    from pyautoattack.fab_pt import FABAttack_PT

    attack = FABAttack_PT(network, n_iter=steps, n_restarts=restarts, **common)
    attack.targeted, attack.n_target_classes = targets is not None, targets
    return cast("Tensor", attack.perturb(images, goal.labels))


def _square(
    network: AsModule, images: Images, goal: Goal, queries: int, first: float = 0.8, rescale: bool = True, **common: Any
) -> Images:
    """One run of Square; `rescale` compresses the schedule of sizes for 10,000 queries into `queries`."""
    from pyautoattack.square import SquareAttack

    attack = SquareAttack(network, n_queries=queries, p_init=first, resc_schedule=rescale, **common)
    attack.targeted = goal.targets is not None
    attack.loss = "ce" if attack.targeted else "margin"
    attack.init_hyperparam(images)
    torch.manual_seed(attack.seed)
    return cast("Tensor", attack.attack_single_run(images, goal.targets if attack.targeted else goal.labels)[1])
