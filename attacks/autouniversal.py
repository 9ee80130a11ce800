"""AutoUniversal: an ensemble with nothing to tune, for one upright patch at a random place on every image.

It learns three patches as `patch` does, and keeps the one that fools most of the held-out training images. These are
every fifth one, or all of them if there are fewer than five:

    0  by the cross-entropy, from 10 starts
    1  by the margin, from 10 starts
    2  by the margin, from 3 starts, along Adam's direction

Ours; the idea of a fixed ensemble of attacks that fail differently is that of Croce and Hein (arXiv 2003.01690). The
artifact says which patch was kept ("variant") and what share of the held-out images each one fools ("fooled"). A
published number belongs to its `version`; what a version does never changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.contracts import Artifact, Goal, Images, Model, Patch, Streams, UniversalAttack

from ._cascade import part_of
from ._paste import Shape
from .autopatch import check_version
from .patch import AdversarialPatch

HELD_OUT = 5
"""One training image in this many is held out: a patch that does best where it learned is often not the best."""
PLACES = 4
"""At how many places on each held-out image a patch is judged."""


@dataclass(frozen=True)
class AutoUniversal(UniversalAttack):
    """The strongest of several universal patches.

    Attributes:
        area: share of the image's pixels that the patch may cover, in (0, 1].
        shape: square or disc.
        training_images: how many images it learns from at the most, 1 or more.
        version: of the ensemble; 1.
    """

    area: float = 0.05
    shape: Shape = "square"
    training_images: int = 500
    version: int = 1

    title = "AutoUniversal"
    paper = "ours, after Croce & Hein 2020, Reliable Evaluation of Adversarial Robustness, arXiv 2003.01690"
    access = "gradients"

    def __post_init__(self) -> None:
        check_version(self.version)
        _ = self.variants  # checks the other parameters

    @property
    def variants(self) -> tuple[AdversarialPatch, ...]:
        """As listed above."""
        first = AdversarialPatch(
            area=self.area,
            shape=self.shape,
            rotation=0.0,
            scale=(1.0, 1.0),
            training_images=self.training_images,
        )
        return first, replace(first, loss="margin"), replace(first, loss="margin", restarts=3, update="adam")

    @property
    def budget(self) -> Patch:
        """One region of that area, freely."""
        return self.variants[0].budget

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where the patch does not fit into the image."""
        self.variants[0].check(image_shape, num_classes)

    def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Artifact:
        """The best patch as {"patch": (c, s, s) in [0, 1], "variant": its number, "fooled": share for each variant}."""
        patches, fooled = [], []
        everything = torch.arange(len(images), device=images.device)
        taken, held = everything[everything % HELD_OUT > 0], everything[::HELD_OUT]
        if len(images) < HELD_OUT:
            taken = held = everything
        for number, variant in enumerate(self.variants):
            part = model[taken]
            part.progress = part_of(model.progress, number, len(self.variants))
            learned = variant.learn(part, images[taken], goal[taken], rng[taken].derive(f"variant {number}"))
            patches.append(learned["patch"])
            fooled.append(_fooled(variant, learned, model[held], images[held], goal[held], rng[held]))
        shares = torch.stack(fooled)
        best = shares.argmax()
        return {"patch": torch.stack(patches)[best], "variant": best, "fooled": shares}

    def apply(self, artifact: Artifact, images: Images, goal: Goal, rng: Streams) -> Images:
        """The images with the patch, each at a random place."""
        return self.variants[0].apply(artifact, images, goal, rng)


def _fooled(
    attack: AdversarialPatch, learned: Artifact, model: Model, images: Images, goal: Goal, rng: Streams
) -> Tensor:
    """The share of images that a patch fools, over several places; the places are the same for every patch."""
    with torch.no_grad():
        judged = [
            goal.reached(model(attack.apply(learned, images, goal, rng.derive(f"judged {place}"))))
            for place in range(PLACES)
        ]
    return torch.stack(judged).to(images.dtype).mean()
