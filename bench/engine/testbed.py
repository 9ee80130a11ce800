"""What every cell of a run shares: the images, the bare model, the goal, and their streams of random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from bench.contracts import Classifier, Goal, InputError, Streams, answers
from bench.data.load import Dataset, choose, fingerprint, load_dataset
from bench.engine.prepare import InBfloat16, full_float32, prepare
from bench.engine.setting import Setting
from bench.models import load_model, model_fingerprint

PIXELS_A_BATCH = 400_000

PROTOCOL = "1"
"""Raised when the engine itself changes what a cell's numbers mean; every older record is then stale."""


class NonFiniteLogitsError(RuntimeError):
    """The bare model answers clean images with NaN or infinity: no number of it means anything."""


@dataclass(frozen=True)
class TrainingImages:
    """Training images in memory, with their labels and their streams."""

    images: Tensor
    labels: Tensor
    streams: Streams


class Testbed:
    """The images of a setting, all in memory, and the bare model."""

    def __init__(self, setting: Setting) -> None:
        """Loads what the setting names, if it is not in memory.

        Raises:
            InputError: there are no images to evaluate, or the model does not fit them.
        """
        self.setting = setting
        self.device = torch.device(setting.device)
        self.dataset: Dataset = setting.memory.dataset if setting.memory else load_dataset(setting.dataset)
        self.name = self.dataset.name
        if not len(self.dataset.test):
            raise InputError(f"Expected images to evaluate on, but {self.name} leaves none.")
        self.indices = choose(self.dataset.test, setting.images, setting.seed)
        self.images = self.dataset.test.load(self.indices).to(self.device)
        self.labels = self.dataset.test.labels[self.indices].to(self.device)
        self.image_shape = (self.images.shape[1], self.images.shape[2], self.images.shape[3])
        self.classes = len(self.dataset.classes)
        self.bare: Classifier = setting.memory.model if setting.memory else self._load_model().to(self.device)
        self.streams = Streams.of(setting.seed, self.indices.to(self.device))
        self.goal = Goal(self.labels, self._targets())
        chosen = max(1, PIXELS_A_BATCH // (self.image_shape[1] * self.image_shape[2]))
        self.batch_size = setting.batch_size or min(128, chosen)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def rows(self) -> Tensor:
        """The places of all images, shape (n,)."""
        return torch.arange(len(self), device=self.device)

    def _load_model(self) -> Classifier:
        setting = self.setting
        return load_model(
            setting.model,
            num_classes=self.classes,
            class_names=self.dataset.classes,
            image_shape=self.image_shape,
            weights=setting.weights,
            mean=setting.mean,
            std=setting.std,
        )

    def _targets(self) -> Tensor | None:
        """The classes that a targeted goal wants: one for all, or for each image a random other one."""
        kind, _, which = self.setting.goal.partition(":")
        if kind == "untargeted":
            return None
        if not which:
            step = self.streams.derive("target").integers(self.classes - 1)
            targets: Tensor = (self.labels + 1 + step) % self.classes
            return targets
        names = {name: number for number, name in enumerate(self.dataset.classes)}
        number = names.get(which, int(which) if which.isdecimal() else -1)
        if not 0 <= number < self.classes:
            raise InputError(
                f"Expected a class of {self.name} (0 … {self.classes - 1}, or a name) as target, but got {which!r}."
            )
        return torch.full_like(self.labels, number)

    def training(self, count: int) -> TrainingImages:
        """A fixed, stratified subset of the training images (all of them if there are fewer)."""
        split = self.dataset.train
        if not count or not len(split):
            empty = self.images[:0]
            return TrainingImages(empty, self.labels[:0], self.streams[:0])
        indices = choose(split, min(count, len(split)), self.setting.seed)
        streams = Streams.of(self.setting.seed, indices.to(self.device)).derive("training")
        return TrainingImages(split.load(indices).to(self.device), split.labels[indices].to(self.device), streams)

    @cached_property
    def prepared(self) -> Classifier:
        """The bare model for everything that only asks it: a faster copy, if there is one with the same answers."""
        return prepare(self.bare, self.images, self.streams)

    @cached_property
    def crafting(self) -> Classifier:
        """The bare model as attacks ask it: `prepared`, in the precision of the setting."""
        return self.prepared if self.setting.precision == "float32" else InBfloat16(self.prepared)

    @property
    def networks(self) -> tuple[Classifier, ...]:
        """The bare model in all its forms."""
        return tuple(dict.fromkeys((self.bare, self.prepared, self.crafting)))

    @cached_property
    def bare_clean(self) -> Tensor:
        """The bare model's logits on the clean images."""
        return answers(self.prepared, self.images, self.streams)

    @full_float32()
    def check_model(self) -> None:
        """Raises NonFiniteLogitsError unless the bare model's logits on the clean images are finite."""
        logits = self.bare_clean
        broken = (~logits.isfinite().all(1)).nonzero()[:, 0]
        if len(broken):
            first = int(self.indices[broken[0]])
            raise NonFiniteLogitsError(
                f"Expected finite logits from the bare model, but got NaN or infinity for {len(broken)} of "
                f"{len(logits)} clean images, first for image {first}. Check its weights and its normalisation."
            )

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the evaluated images, of all training images, of the bare model, and of the engine."""
        in_memory = self.setting.memory is not None  # where images may differ by less than a step of 8 bits
        return {
            "data": self.dataset.test.fingerprint if in_memory else fingerprint(self.images.cpu(), self.labels.cpu()),
            "training": self.dataset.train.fingerprint,
            "weights": model_fingerprint(self.setting.model, self.bare),
            "protocol": PROTOCOL,
        }


@lru_cache(maxsize=1)
def testbed_of(setting: Setting) -> Testbed:
    """The testbed of a setting; the last one is kept, since the cells of a run share it."""
    return Testbed(setting)
