"""An attack and a trained defense that write a line into a file whenever they do their work."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from bench.contracts import (
    Artifact,
    Attack,
    Budget,
    Classifier,
    Defense,
    Examples,
    Goal,
    Images,
    Linf,
    Model,
    Streams,
    Transformed,
)


def _log(what: str) -> None:
    """One line beside the cache; a single short write to a file that is open for appending is never torn."""
    with Path(os.environ["BENCH_CACHE"]).with_name("log").open("a") as file:
        file.write(f"{os.getpid()} {what}\n")


@dataclass(frozen=True)
class CountedAttack(Attack):
    """Noise of one size.

    Attributes:
        eps: the size.
    """

    eps: float = 0.05
    name: ClassVar[str] = "counted"
    title: ClassVar[str] = "counted"
    access = "none"

    @property
    def budget(self) -> Budget:
        """In L∞."""
        return Linf(self.eps)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """Takes a moment, so that runs meet."""
        defended = type(model.classifier).__name__ == "Transformed"
        _log(f"crafted {self.eps} {'defended' if defended else 'bare'} {len(images)}")
        time.sleep(0.2)
        signs = rng.derive("signs").integers(2).to(images.dtype) * 2 - 1
        return (images + self.eps * signs.reshape(-1, 1, 1, 1)).clamp(0, 1)


@dataclass(frozen=True)
class Shifted(Defense):
    """Subtracts the mean brightness of some training images, times a number.

    Attributes:
        share: the number.
    """

    share: float = 0.1
    name: ClassVar[str] = "shifted"
    title: ClassVar[str] = "shifted"
    kind = "trained"

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The mean."""
        _log(f"trained {self.share}")
        time.sleep(0.2)
        return {"mean": training.load(torch.arange(4)).mean()}

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind the shift."""
        return Transformed(model, lambda images, rng: (images - self.share * learned["mean"]).clamp(0, 1))
