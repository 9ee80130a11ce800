"""What every cell of a run shares: the images, the bare model, the goal, and their streams of random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from bench.contracts import Classifier, Goal, InputError, Streams, answers
from bench.data.load import Dataset, choose, fingerprint, load_dataset
from bench.engine.setting import Setting, without_folders
from bench.models import load_model, weights_fingerprint

PIXELS_A_BATCH = 400_000


@dataclass(frozen=True)
class Examples:
    """Images with their labels and their streams."""

    images: Tensor
    labels: Tensor
    streams: Streams


class Testbed:
    """The images of a setting, all in memory, and the bare model."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.device = torch.device(setting.device)
        self.dataset: Dataset = load_dataset(setting.dataset)
        self.name = without_folders(setting.dataset)
        if not len(self.dataset.test):
            raise InputError(f"Expected images to evaluate on, but {self.name} leaves none.")
        self.indices = choose(self.dataset.test, setting.images, setting.seed)
        self.images = self.dataset.test.load(self.indices).to(self.device)
        self.labels = self.dataset.test.labels[self.indices].to(self.device)
        self.image_shape = (self.images.shape[1], self.images.shape[2], self.images.shape[3])
        self.classes = len(self.dataset.classes)
        self.bare: Classifier = load_model(
            setting.model,
            num_classes=self.classes,
            image_shape=self.image_shape,
            weights=setting.weights,
            mean=setting.mean,
            std=setting.std,
        ).to(self.device)
        self.streams = Streams.of(setting.seed, self.indices.to(self.device))
        self.goal = Goal(self.labels, self._targets())
        chosen = max(1, PIXELS_A_BATCH // (self.image_shape[1] * self.image_shape[2]))
        self.batch_size = setting.batch_size or min(128, chosen)

    def __len__(self) -> int:
        return len(self.images)

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

    def training(self, count: int) -> Examples:
        """A fixed, stratified subset of the training images (all of them if there are fewer)."""
        split = self.dataset.train
        if not count or not len(split):
            empty = self.images[:0]
            return Examples(empty, self.labels[:0], self.streams[:0])
        indices = choose(split, min(count, len(split)), self.setting.seed)
        streams = Streams.of(self.setting.seed, indices.to(self.device)).derive("training")
        return Examples(split.load(indices).to(self.device), split.labels[indices].to(self.device), streams)

    @cached_property
    def bare_clean(self) -> Tensor:
        """The bare model's logits on the clean images."""
        return answers(self.bare, self.images, self.streams)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Of the evaluated images, of the training images (a sample of 64 and their number), and of the bare model."""
        train = self.dataset.train
        sample = torch.linspace(0, len(train) - 1, min(64, len(train))).long()
        sampled = fingerprint(train.load(sample), train.labels[sample]) if len(sample) else "none"
        return {
            "data": fingerprint(self.images.cpu(), self.labels.cpu()),
            "training": f"{len(train)} {sampled}",
            "weights": weights_fingerprint(self.bare),
        }


@lru_cache(maxsize=1)
def testbed_of(setting: Setting) -> Testbed:
    """The testbed of a setting; the last one is kept, since the cells of a run share it."""
    return Testbed(setting)
