"""Attacks that break their agreement, each in its own way, and a defense that fails."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from bench.contracts import (
    Artifact,
    Attack,
    Budget,
    CertifiedDefense,
    Classifier,
    Defense,
    Goal,
    Images,
    Labels,
    Linf,
    Model,
    Streams,
)


@dataclass(frozen=True)
class Faulty(Attack):
    """Fails in a way that can be chosen.

    Attributes:
        way: how.
    """

    way: Literal["raise", "nan", "shape", "range", "budget", "die", "kill", "kill-job", "hang", "memory"] = "raise"
    name: ClassVar[str] = "faulty"
    title: ClassVar[str] = "faulty"
    access = "none"

    @property
    def budget(self) -> Budget:
        """A small one."""
        return Linf(0.01)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """Fails."""
        if self.way == "raise":
            raise RuntimeError("as asked")
        if self.way == "nan":
            return images * torch.nan
        if self.way == "shape":
            return images[:, :, 1:]
        if self.way == "range":
            return images + 2
        if self.way == "budget":
            return 1 - images
        if self.way == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.way == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.way == "kill-job":
            os.kill(os.getppid(), signal.SIGKILL)
        if self.way == "memory":
            raise MemoryError
        time.sleep(3600)
        return images


@dataclass(frozen=True)
class Broken(Defense):
    """Cannot protect anything."""

    name: ClassVar[str] = "broken"
    title: ClassVar[str] = "broken"
    kind = "none"

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """Fails."""
        raise RuntimeError("nothing to protect with")


@dataclass(frozen=True)
class Overconfident(CertifiedDefense):
    """Leaves the model alone, and proves whatever is asked."""

    name: ClassVar[str] = "overconfident"
    title: ClassVar[str] = "overconfident"
    kind = "certified"

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The bare model."""
        return model

    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """All."""
        return torch.ones_like(labels, dtype=torch.bool)
