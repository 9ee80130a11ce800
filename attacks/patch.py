"""Adversarial patch: one picture that fools the model wherever it lies (Brown et al. 2017, arXiv 1712.09665).

    min_p  E over images x, places l, angles and sizes t of  loss(model(A(p, x, l, t)))
           + smoothness · roughness(p) + disguise_weight · mean (p − disguise)² / 2

A lays the patch p over the image (`_paste`); every step draws fresh places. The loss is the goal's: the paper wants
one target class; without targets it is the true class that has to lose. `loss=margin` for targets is the objective
of LaVAN (arXiv 1801.02608) without its source class: the preset `lavan` is its universal form.

Departures from the paper:
- The content is kept in [0, 1] after each step. The authors clip the patched image alone, so that values that left
  the range get no gradient and stay there.
- The size of a patch is bounded by `area`; the authors train on sizes from a tenth of the image's width to all of
  it. `scale` gives a range below the bound, the same in training and evaluation.
- The default takes steps along the sign, each shorter than the one before: it reaches in 200 steps what plain
  gradient descent takes thousands for. The presets `brown2017` and `uva` descend as their sources do; the
  first one's rate 5 on the range [-1, 1] is 1.25 on [0, 1], the second one's tanh parametrisation is left out and its
  rate is that at mid-grey.
- With several `models` each step is computed on the next one, as the authors do; `steps` counts them all. Where the
  model under attack (`victim`) is not among them, it is asked nothing: that is the transfer setting, and its access
  is `none`, as that of a given picture is.
- With `restarts`, several patches begin beside each other, and after every tenth of the steps the worse half of them
  is given up. A universal patch without a target ends in one class for nearly all images, and how strong it is
  depends on which. So for the first tenth each start aims at a class of its own, the nearest ones first; after it
  all go on without an aim. The starts are compared by the true goal's loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contracts import Artifact, Goal, Images, Labels, Model, Streams, UniversalAttack
from bench.memory import piece_of

from ._paste import Placed, paste
from ._picture import check_picture, read_picture
from ._steps import Loss, losses
from ._teachers import VICTIM, check_teachers, split, teacher_files, teacher_modules, teachers
from ._update import Mover, Update, check_updates, roughness


@dataclass(frozen=True)
class AdversarialPatch(Placed, UniversalAttack):
    """One learned picture that fools the model wherever it lies.

    Attributes:
        area: share of the image's pixels that the patch may cover, in (0, 1].
        shape: square or disc.
        rotation: turned by a random angle between −rotation and +rotation, in degrees, 0 to 180.
        scale: each image's patch has a random side between these shares of the full one, in (0, 1].
        location: anywhere, along the image's border, in one of its corners, or `at` a fixed place.
        at: row and column of the patch's upper left corner in pixels, for `location=fixed`.
        steps: how many steps, 1 or more.
        batch_size: on how many training images, each with its own place, a step is computed, 1 or more.
        update: what a step follows: the `gradient`, its `sign`, or `adam`.
        step_size: length of the first step in values of [0, 1] (for `gradient`: the factor), above 0.
        momentum: share of the former direction that is kept, from 0 to below 1.
        decay: whether steps shrink, linearly to zero.
        loss: `cross-entropy`, or `margin` between the logits.
        restarts: how many beginnings are tried, 1 or more; without targets each first aims at another class.
        training_images: how many images it learns from at the most, 1 or more.
        models: the classifiers that it learns on in turn, with semicolons between them: `victim` is the one under
            attack; another is a name of `bench run --model`, with & for its commas, and @FILE for its weights.
        smoothness: weight of a penalty on differences between neighbouring values, 0 or more; against defenses
            that look for steep gradients.
        image: a picture file that is used as the patch as it is (resized); nothing is learned then.
        disguise: a picture file that the patch should resemble.
        disguise_weight: how much, 0 or more.
    """

    steps: int = 200
    batch_size: int = 64
    update: Update = "sign"
    step_size: float = 0.05
    momentum: float = 0.9
    decay: bool = True
    loss: Loss = "cross-entropy"
    restarts: int = 10
    training_images: int = 500
    models: str = VICTIM
    smoothness: float = 0.0
    image: str | None = None
    disguise: str | None = None
    disguise_weight: float = 1.0

    title = "Patch"
    paper = "Brown et al., Adversarial Patch, arXiv 1712.09665"
    access = "gradients"
    _brown: ClassVar[Mapping[str, Any]] = {
        "shape": "disc",
        "scale": (1.0, 1.0),
        "steps": 500,
        "batch_size": 16,
        "update": "gradient",
        "step_size": 1.25,
        "momentum": 0.0,
        "decay": False,
        "restarts": 1,
    }
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 100},
        "paper": _brown,
        "brown2017": _brown,
        "uva": {
            "area": 64**2 / 224**2,
            "rotation": 0.0,
            "scale": (1.0, 1.0),
            "steps": 700,
            "batch_size": 32,
            "update": "gradient",
            "step_size": 0.025,
            "momentum": 0.8,
            "decay": False,
            "restarts": 1,
        },
        "lavan": {"area": 0.02, "rotation": 0.0, "scale": (1.0, 1.0), "location": "border", "loss": "margin"},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_updates(self.steps, self.step_size, self.momentum, self.smoothness)
        for name in ("batch_size", "restarts", "training_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1; got {getattr(self, name)}.")
        if self.disguise_weight < 0:
            raise ValueError(f"disguise_weight is 0 or more; got {self.disguise_weight}.")
        for file in (self.image, self.disguise):
            if file is not None:
                check_picture(Path(file))
        if self.image is not None or VICTIM not in split(self.models):
            object.__setattr__(self, "title", "Patch (transfer)" if self.image is None else "Patch (given picture)")
            object.__setattr__(self, "access", "none")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where the patch does not fit, or a model to learn on cannot be had."""
        super().check(image_shape, num_classes)
        check_teachers(self.models, image_shape, num_classes)

    def files(self) -> tuple[Path, ...]:
        """The pictures, and the weights of the models to learn on."""
        return (*super().files(), *teacher_files(self.models))

    def modules(self) -> tuple[str, ...]:
        """Those of `python:` models to learn on."""
        return teacher_modules(self.models)

    @property
    def learns(self) -> bool:
        """Not where the patch is a given picture."""
        return self.image is None

    def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Artifact:
        """The patch as {"patch": values in [0, 1] of shape (c, s, s)}, s its side in pixels."""
        side = self.side(*images.shape[2:])
        if self.image is not None:
            return {"patch": read_picture(Path(self.image), images, side)}
        taught = teachers(self.models, model, images, goal, rng)
        runs = [_Run(self, images, side, rng[:1].derive(f"start {one}")) for one in range(self.restarts)]
        if goal.targets is None and len(runs) > 1:
            for run, aim in zip(runs, runs[0].nearest_classes(*taught[0], images, rng), strict=False):
                run.aim = aim
        alive = [math.ceil(len(runs) / 2 ** (step // self._trial)) for step in range(self.steps)]
        for step, count in enumerate(alive):
            if count < len(runs):
                runs = sorted(runs, key=lambda run: run.lately(math.ceil(self._trial / 2)))[:count]
            for run in runs:
                if step == self._trial:
                    run.aim = None
                run.step(step, *taught[step % len(taught)], images, rng)
            model.progress(sum(alive[: step + 1]) / sum(alive))
        return {"patch": min(runs, key=lambda run: run.lately(1)).patch}

    @property
    def _trial(self) -> int:
        """After so many steps the worse half of the starts is given up."""
        return max(1, self.steps // 10)

    def apply(self, artifact: Artifact, images: Images, goal: Goal, rng: Streams) -> Images:
        """The images with the patch, each at a random place."""
        return paste(images, artifact["patch"].to(images), self.place(images, rng.derive("placement")))


class _Run:
    """A patch on its way."""

    def __init__(self, attack: AdversarialPatch, images: Images, side: int, rng: Streams) -> None:
        self._attack = attack
        self._mover = Mover(attack.update, attack.step_size, attack.momentum)
        # Near mid-grey, as the paper starts; the little noise decides which class a patch ends in.
        noise = rng.uniform(images.shape[1], side, side, low=-0.1, high=0.1)[0]
        self.patch: Float[Tensor, "c s s"] = (0.5 + noise).to(images.dtype)
        self._disguise = None if attack.disguise is None else read_picture(Path(attack.disguise), images, side)
        self._losses: list[Tensor] = []
        self.aim: int | None = None

    def nearest_classes(self, model: Model, goal: Goal, images: Images, rng: Streams) -> list[int]:
        """The classes that the images of the first step, with this patch, are nearest to besides their own."""
        rows = _batch(0, len(images), self._attack.batch_size, rng)
        nearness, others = torch.zeros(()), torch.zeros(())
        with torch.no_grad():
            for part in torch.split(rows, piece_of(images.shape)):
                placement = self._attack.place(images[part], rng[part].derive("place 0"))
                logits = model[part](paste(images[part], self.patch, placement))
                log_p = logits[..., : logits.shape[-1] - goal.rejects].log_softmax(-1)
                own = goal.labels[part].expand(log_p.shape[:-1])[..., None]
                nearness = nearness + log_p.scatter(-1, own, 0).flatten(0, -2).sum(0)
                others = others + torch.ones_like(log_p).scatter(-1, own, 0).flatten(0, -2).sum(0)
        order = (nearness / others).argsort(descending=True, stable=True)
        return [int(one) for one in order if others[one] > 0]

    def step(self, step: int, model: Model, goal: Goal, images: Images, rng: Streams) -> None:
        """One step on a batch of the images; the batch is computed in parts that fit into memory."""
        attack = self._attack
        rows = _batch(step, len(images), attack.batch_size, rng)
        patch = self.patch.detach().requires_grad_()
        with torch.enable_grad():
            loss = self._penalty(patch)
            (gradient,) = torch.autograd.grad(loss + 0 * patch.sum(), patch)
            for part in torch.split(rows, piece_of(images.shape)):
                placement = attack.place(images[part], rng[part].derive(f"place {step}"))
                logits = model[part](paste(images[part], patch, placement))
                true = losses(attack.loss, goal[part], logits)
                aimed = true if self.aim is None else self._aimed(goal[part], self.aim, logits)
                gradient = gradient + torch.autograd.grad(aimed.sum() / len(rows), patch)[0]
                loss = loss + true.detach().sum() / len(rows)
        self.patch = self._mover(self.patch, gradient, 1 - step / attack.steps if attack.decay else 1.0)
        self._losses.append(loss.detach())

    def lately(self, steps: int) -> float:
        """The sum of its losses in the last steps; reading it waits for the device."""
        return sum(map(float, self._losses[-steps:]))

    def _aimed(self, goal: Goal, aim: int, logits: Tensor) -> Float[Tensor, "n"]:
        """The loss of images that should all be seen as one class; those of that class do not count."""
        wanted = Goal(goal.labels, torch.full_like(goal.labels, aim), goal.rejects)
        return losses(self._attack.loss, wanted, logits) * (goal.labels != aim)

    def _penalty(self, patch: Tensor) -> Tensor:
        penalty = self._attack.smoothness * roughness(patch)
        if self._disguise is None:
            return penalty
        return penalty + self._attack.disguise_weight * (patch - self._disguise).square().mean() / 2


def _batch(step: int, count: int, size: int, rng: Streams) -> Labels:
    """The images of a step: each pass through all of them has its own random order."""
    size = min(size, count)
    batches = count // size
    order = rng[:1].derive(f"order {step // batches}").permutations(count)[0]
    start = step % batches * size
    return order[start : start + size]
