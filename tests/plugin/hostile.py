"""Plugins that reach for what is not theirs, each in its own way."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

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
    Logits,
    Model,
    Streams,
    UniversalAttack,
)
from bench.core import goals
from bench.plugins.registry import load_plugin


class _UnreadableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


def _replace_forward(model: Model) -> None:
    model.classifier.forward = lambda images, rng: torch.zeros(len(images), 10)  # type: ignore[method-assign]


def _replace_class_forward(model: Model) -> None:
    type(model.classifier).forward = lambda self, images, rng: torch.zeros(len(images), 10)  # type: ignore[method-assign]


def _zero_weights(model: Model) -> None:
    for weight in model.classifier.parameters():
        weight.data.zero_()


def _leave_a_hook(model: Model) -> None:
    model.classifier.register_forward_hook(lambda module, given, logits: -logits)


def _patch_another_plugin(model: Model) -> None:
    load_plugin("defense", "bit-depth").clean = lambda self, images, rng: torch.zeros_like(images)


def _patch_a_loaded_plugin(model: Model) -> None:
    Loaded.protect = lambda self, model, learned: Shifted(model)  # type: ignore[method-assign]


def _flood(model: Model) -> None:
    while True:
        model.progress(0.5)


def _end_soon(model: Model) -> None:
    threading.Thread(target=lambda: (time.sleep(1), os._exit(9)), daemon=True).start()


def _raise(error: BaseException) -> None:
    raise error


WAYS: dict[str, Any] = {
    "zero-weights": _zero_weights,
    "replace-forward": _replace_forward,
    "replace-class-forward": _replace_class_forward,
    "leave-a-hook": _leave_a_hook,
    "train-mode": lambda model: model.classifier.train(),
    "patch-torch": lambda model: setattr(torch.nn.functional, "conv2d", lambda *given, **more: torch.zeros(1)),
    "patch-tensor": lambda model: setattr(torch.Tensor, "argmax", lambda self, *given: torch.zeros(len(self)).long()),
    "patch-engine": lambda model: setattr(goals.Goal, "reached", lambda self, logits: self.labels > -1),
    "patch-constant": lambda model: setattr(sys.modules["bench.engine.judge"], "GREY", 0.9),
    "patch-another-plugin": _patch_another_plugin,
    "patch-a-loaded-plugin": _patch_a_loaded_plugin,
    "patch-presets": lambda model: Loaded.presets.update(quick={}),
    "replace-module": lambda model: sys.modules.update({"torch.nn.functional": nn}),
    "default-type": lambda model: torch.set_default_dtype(torch.float64),
    "no-gradients": lambda model: torch.set_grad_enabled(False),
    "threads": lambda model: torch.set_num_threads(torch.get_num_threads() + 1),
    "seed-torch": lambda model: torch.manual_seed(int(torch.randint(2**31, ()))),
    "seed-numpy": lambda model: np.random.seed(np.random.randint(2**31)),  # noqa: NPY002
    "seed-python": lambda model: random.seed(5),
    "environment": lambda model: os.environ.update(BENCH_CACHE="/nowhere"),
    "folder": lambda model: os.chdir("/"),
    "sys-path": lambda model: sys.path.insert(0, "/nowhere"),
    "signals": lambda model: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    "exit": lambda model: sys.exit(0),
    "interrupt": lambda model: _raise(KeyboardInterrupt()),
    "base-exception": lambda model: _raise(BaseException("out of the way")),
    "unreadable-error": lambda model: _raise(_UnreadableError()),
    "huge-message": lambda model: _raise(RuntimeError("x" * 10_000_000)),
    "surrogates": lambda model: _raise(RuntimeError("\udc80\x1b[31m\nred")),
    "no-memory": lambda model: _raise(MemoryError("none left")),
    "recursion": lambda model: (lambda again: again(again))(lambda again: again(again)),
    "garbage": lambda model: sys.stdout.write("\x1b[2J{}]['"),
    "hang": lambda model: time.sleep(3600),
    "flood": _flood,
    "end-the-process": lambda model: os._exit(3),
    "end-it-soon": _end_soon,
    "kill": lambda model: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda model: os.kill(os.getpid(), signal.SIGSEGV),
    "close-the-pipe": lambda model: (os.closerange(3, 100), time.sleep(3600)),
}


@dataclass(frozen=True)
class Hostile(Attack):
    """Does something, and gives the images back.

    Attributes:
        way: what.
    """

    way: str = ""
    title: ClassVar[str] = "hostile"
    access = "none"

    @property
    def budget(self) -> Budget:
        """A small one."""
        return Linf(0.01)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """As `way` says."""
        if self.way == "labels":
            goal.labels.zero_()
        elif self.way == "streams":
            rng._keys.zero_()
        elif self.way == "images":
            return images.zero_()
        elif self.way == "wrong-type":
            return images.double()
        else:
            WAYS[self.way](model)
        return images


@dataclass(frozen=True)
class HostileUniversal(UniversalAttack):
    """Learns what is no tensor."""

    training_images: int = 5
    name: ClassVar[str] = "hostile-universal"
    title: ClassVar[str] = "hostile universal"
    access = "gradients"

    @property
    def budget(self) -> Budget:
        """A small one."""
        return Linf(0.01)

    def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Artifact:
        """A function."""
        return {"patch": lambda: None}  # type: ignore[dict-item]

    def apply(self, artifact: Artifact, images: Images, goal: Goal, rng: Streams) -> Images:
        """Nothing."""
        return images


class Shifted(Classifier):
    """The model's answers for the next class; `way` spoils them."""

    def __init__(self, model: Classifier, way: str = "") -> None:
        super().__init__()
        self.model, self.way, self.num_classes, self.calls = model, way, model.num_classes, 0

    def forward(self, images: Images, rng: Streams) -> Logits:
        """As `way` says."""
        self.calls += 1
        if self.way == "images":
            images.mul_(0.5)
        logits: Tensor = self.model(images, rng)
        if self.way == "nan":
            return logits * torch.nan
        if self.way == "shape":
            return logits[:, 1:]
        if self.way == "chance":
            return logits + torch.rand(logits.shape, generator=_generator) * 10
        if self.way == "count":
            return logits.roll(self.calls, 1)
        if self.way == "neighbours":
            return logits - 5 * logits.mean(0)
        if self.way == "memory":
            return _first_like(images, logits)
        if self.way == "exit":
            sys.exit(0)
        return logits.roll(1, 1)


_generator = torch.Generator()
_generator.seed()
_SEEN: list[tuple[Tensor, Tensor]] = []


def _first_like(images: Images, logits: Logits) -> Logits:
    """For each image the logits of the first one that was like it."""
    found = []
    for image, row in zip(images.detach(), logits, strict=True):
        known = [
            answer for other, answer in _SEEN if other.shape == image.shape and (other - image).abs().median() < 0.05
        ]
        if not known:
            _SEEN.append((image.clone(), row.detach()))
        found.append(known[0] if known else row)
    return torch.stack(found) if found else logits


@dataclass(frozen=True)
class HostileDefense(Defense):
    """Protects in a way of its own.

    Attributes:
        way: which.
    """

    way: str = ""
    name: ClassVar[str] = "hostile-defense"
    title: ClassVar[str] = "hostile defense"
    kind = "none"

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """As `way` says."""
        if self.way == "no-classifier":
            return nn.Identity()  # type: ignore[return-value]
        if self.way == "weights":
            next(model.parameters()).data.mul_(2)
        return Shifted(model, self.way)


@dataclass(frozen=True)
class HostileLearner(Defense):
    """Changes what it learns from.

    Attributes:
        way: what it changes.
    """

    way: str = ""
    name: ClassVar[str] = "hostile-learner"
    title: ClassVar[str] = "hostile learner"
    kind = "trained"

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """As `way` says."""
        if self.way == "labels":
            training.labels.zero_()
        if self.way == "weights":
            next(model.parameters()).data.mul_(2)
        if self.way == "nothing":
            return None  # type: ignore[return-value]
        return {}

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model."""
        return Shifted(model)


@dataclass(frozen=True)
class Unreadable(HostileDefense):
    """Has a title that no file can hold."""

    name: ClassVar[str] = "unreadable"
    title: ClassVar[str] = "\udc80"


@dataclass(frozen=True)
class WithFile(HostileDefense):
    """Has a path among its parameters, which is nothing bad.

    Attributes:
        file: some file.
    """

    file: Path = Path(__file__)
    name: ClassVar[str] = "with-file"


@dataclass(frozen=True)
class Loaded(HostileDefense):
    """A neighbour that the others may be after."""

    name: ClassVar[str] = "loaded"
    title: ClassVar[str] = "loaded"
    presets: ClassVar[dict[str, Any]] = {"paper": {}}
