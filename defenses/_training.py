"""Shared by the defenses that train the classifier itself, or a copy of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.augment import mirrored_shifts
from bench.contracts import Artifact, Classifier, Defense, Examples, Images, InputError, Labels, Streams
from bench.training import Batch, TrainingPrecision, private_randomness

from ._examples import choose, packed, seed_of, train, unpacked
from ._ranges import within


@dataclass(frozen=True)
class Recipe(Defense):
    """A defense that trains a network on the training images.

    Attributes:
        epochs: how often each training image is seen.
        learning_rate: its maximum, reached after a tenth of the training; then it falls to zero along a cosine.
        batch_size: images per step, at least 2.
        weight_decay: weight decay of AdamW.
        training_images: largest number of images to learn from, at least 2.
        shift: largest random shift of training images in pixels, in both directions.
        mirror: whether to mirror half of them.
        precision: in which a CPU computes the training; `bfloat16` is nearly twice as fast where the CPU knows it.
    """

    epochs: int = 6
    learning_rate: float = 1e-3
    batch_size: int = 128
    weight_decay: float = 5e-4
    training_images: int = 4000
    shift: int = 2
    mirror: bool = True
    precision: TrainingPrecision = "float32"

    kind = "trained"

    def __post_init__(self) -> None:
        within("epochs", self.epochs, 1, 1e5, "6 is the default")
        within("a learning rate", self.learning_rate, 0, 10, "0.001 is the default")
        within("a batch size", self.batch_size, 2, 1e6, "128 is the default")
        within("a weight decay", self.weight_decay, 0, 10, "0.0005 is the default")
        within("training_images", self.training_images, 2, math.inf, "4000 is the default")
        within("a shift in pixels", self.shift, 0, 64, "2 is the default, 0 turns it off")

    def examples(self, training: Examples, rng: Streams) -> tuple[Images, Labels, Streams]:
        """The training images with their labels and streams."""
        return choose(training, rng, self.training_images, self.title)

    def train(
        self, network: nn.Module, images: Images, targets: Tensor, training: Examples, rng: Streams, **settings: Any
    ) -> int:
        """Trains the network in place by this recipe, which `settings` for `bench.training.fit` override."""
        recipe: dict[str, Any] = {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "weight_decay": self.weight_decay,
            "precision": self.precision,
            "augment": partial(mirrored_shifts, shift=self.shift, mirror=self.mirror),
        }
        return train(network, images, targets, training, rng, **(recipe | settings))


@dataclass(frozen=True)
class Trained(Recipe):
    """A network of the bare model's architecture, trained differently.

    Attributes:
        start: `bare` starts from the given model's weights, `scratch` from random ones.
    """

    start: Literal["bare", "scratch"] = "bare"

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The weights of the trained network."""
        images, labels, streams = self.examples(training, rng)
        network = self.initial_network(model, images, streams)
        self.train(network, images, labels, training, streams, loss=self.loss)
        return packed(network)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The trained network."""
        return trained(model, learned)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The loss to minimise: the cross-entropy, for targets that are classes or probabilities."""
        return F.cross_entropy(network(batch.images, batch.rng), batch.targets)

    def initial_network(self, model: Classifier, images: Images, rng: Streams) -> Classifier:
        """The network before its training on these images."""
        return copy.deepcopy(model) if self.start == "bare" else reset(model, seed_of(rng.derive("weights")))


def trained(model: Classifier, learned: Artifact) -> Classifier:
    """The model with the weights of an artifact."""
    return unpacked(lambda: copy.deepcopy(model), learned)


def reset(model: Classifier, seed: int) -> Classifier:
    """The same architecture with random weights, as its modules initialise them.

    Raises InputError if a module has weights but no `reset_parameters`.
    """
    fresh = copy.deepcopy(model)
    stuck = [
        name or type(module).__name__
        for name, module in fresh.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and not hasattr(module, "reset_parameters")
    ]
    if stuck:
        raise InputError(
            f"Expected a model whose modules all have reset_parameters, but {', '.join(stuck[:3])} has not. Start from "
            "the given weights instead: start=bare."
        )
    device = next(fresh.parameters()).device
    with private_randomness(seed, device):
        for module in fresh.modules():
            getattr(module, "reset_parameters", lambda: None)()
    return fresh


def cross_entropies(
    network: nn.Module, clean: Images, attacked: Images, labels: Labels, rng: Streams, clean_share: float
) -> Tensor:
    """The mean cross-entropies of clean and attacked images, weighted by `clean_share`; all images in one batch."""
    twice = torch.arange(len(clean), device=clean.device).repeat(2)
    logits = network(torch.cat([clean, attacked]), rng[twice])
    of_clean, of_attacked = F.cross_entropy(logits, labels[twice], reduction="none").chunk(2)
    return clean_share * of_clean.mean() + (1 - clean_share) * of_attacked.mean()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts the network into evaluation mode (batch norms use and keep their statistics), and back afterwards."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)
