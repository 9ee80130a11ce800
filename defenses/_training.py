"""What the defenses share that train the classifier itself, or a copy of it."""

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
from bench.training import Batch, private_randomness

from ._examples import choose, packed, seed_of, train, unpacked
from ._ranges import within


@dataclass(frozen=True)
class Recipe(Defense):
    """A defense that trains a network on the training images.

    Attributes:
        epochs: how often each training image is seen.
        learning_rate: the highest; it rises for a tenth of the training and falls to nothing along a cosine.
        batch_size: images a step, at least 2.
        weight_decay: of AdamW.
        training_images: how many images it learns from at the most, at least 2.
        shift: by how many pixels training images are shifted at random, in both directions.
        mirror: whether half of them are mirrored.
    """

    epochs: int = 6
    learning_rate: float = 1e-3
    batch_size: int = 128
    weight_decay: float = 5e-4
    training_images: int = 4000
    shift: int = 2
    mirror: bool = True

    kind = "trained"

    def __post_init__(self) -> None:
        within("epochs", self.epochs, 1, 1e5, "6 is the default")
        within("a learning rate", self.learning_rate, 0, 10, "0.001 is the default")
        within("a batch size", self.batch_size, 2, 1e6, "128 is the default")
        within("a weight decay", self.weight_decay, 0, 10, "0.0005 is the default")
        within("training_images", self.training_images, 2, math.inf, "4000 is the default")
        within("a shift in pixels", self.shift, 0, 64, "2 is the default, 0 is none")

    def examples(self, training: Examples, rng: Streams) -> tuple[Images, Labels, Streams]:
        """The training images with their labels and streams."""
        return choose(training, rng, self.training_images, self.title)

    def train(
        self, network: nn.Module, images: Images, targets: Tensor, training: Examples, rng: Streams, **settings: Any
    ) -> int:
        """Trains the network in place by this recipe; `settings` of `bench.training.fit` go before its own."""
        own: dict[str, Any] = {
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
            "batch_size": self.batch_size,
            "weight_decay": self.weight_decay,
            "augment": partial(mirrored_shifts, shift=self.shift, mirror=self.mirror),
        }
        return train(network, images, targets, training, rng, **(own | settings))


@dataclass(frozen=True)
class Trained(Recipe):
    """A network of the bare model's architecture, trained in another way.

    Attributes:
        start: `bare` trains the given model further; `scratch` begins with fresh weights.
    """

    start: Literal["bare", "scratch"] = "bare"

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The weights of the trained network."""
        images, labels, streams = self.examples(training, rng)
        network = self.beginning(model, images, streams)
        self.train(network, images, labels, training, streams, loss=self.loss)
        return packed(network)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The trained network."""
        return trained(model, learned)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """What the training makes small: the cross-entropy; targets are classes or probabilities."""
        return F.cross_entropy(network(batch.images, batch.rng), batch.targets)

    def beginning(self, model: Classifier, images: Images, rng: Streams) -> Classifier:
        """The network before its training on these images."""
        return copy.deepcopy(model) if self.start == "bare" else reset(model, seed_of(rng.derive("weights")))


def trained(model: Classifier, learned: Artifact) -> Classifier:
    """The model with the weights of an artifact."""
    return unpacked(lambda: copy.deepcopy(model), learned)


def reset(model: Classifier, seed: int) -> Classifier:
    """The same architecture with fresh weights, as its modules draw them.

    Raises InputError where a module has weights and cannot draw them anew.
    """
    fresh = copy.deepcopy(model)
    stuck = [
        name or type(module).__name__
        for name, module in fresh.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and not hasattr(module, "reset_parameters")
    ]
    if stuck:
        raise InputError(
            f"Expected a model whose modules can all draw fresh weights (reset_parameters), but {', '.join(stuck[:3])} "
            "cannot. Train the given weights further instead: start=bare."
        )
    device = next(fresh.parameters()).device
    with private_randomness(seed, device):
        for module in fresh.modules():
            draw_anew = getattr(module, "reset_parameters", None)
            if draw_anew is not None:
                draw_anew()
    return fresh


def cross_entropies(
    network: nn.Module, clean: Images, attacked: Images, labels: Labels, rng: Streams, clean_share: float
) -> Tensor:
    """`clean_share` of the clean images' mean cross-entropy and the rest of the attacked ones'; both in one batch."""
    twice = torch.arange(len(clean), device=clean.device).repeat(2)
    logits = network(torch.cat([clean, attacked]), rng[twice])
    right, withstood = F.cross_entropy(logits, labels[twice], reduction="none").chunk(2)
    return clean_share * right.mean() + (1 - clean_share) * withstood.mean()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode (batch norms use and keep their statistics), and afterwards as it was."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)
