"""`bench.defend`: a defended model that anyone can call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import torch
from torch import nn

from bench.api.inputs import (
    AnyModel,
    Function,
    check_evaluation_mode,
    checked_images,
    checked_labels,
    classifier_of,
    dataset_of,
    device_of,
    model_name,
    without_weight_gradients,
)
from bench.contracts import Artifact, Classifier, Defense, Images, InputError, Labels, Logits, Streams
from bench.core.tensor_cache import temporary_cache
from bench.engine.protect import learn
from bench.engine.setting import InMemory, Setting
from bench.engine.testbed import Testbed
from bench.engine.workers import load_plugins
from bench.plugins.registry import make_defense
from bench.plugins.specs import check_known

Normalisation = tuple[Sequence[float] | None, Sequence[float] | None]


class DefendedModel(nn.Module):
    """A model behind a defense: images, float32 NCHW in [0, 1] -> logits.

    A detector's logits have one more column, the last, for "rejected". A random defense draws anew in each call; the
    same calls in the same order give the same answers. Many defenses give no useful gradient: attack libraries need
    `through(view)`, and `bench.evaluate` with `defense=` knows all views by itself.

    Attributes:
        text: of the defense.
        classifier: bare model and defense together, None until the first call tells the number of classes.
    """

    classifier: Classifier | None

    def __init__(
        self,
        model: AnyModel,
        text: str,
        learned: Artifact,
        normalisation: Normalisation,
        seed: int,
        view: str | None = None,
    ) -> None:
        """Puts a defense that has learned in front of a model; `defend_model` makes it."""
        super().__init__()
        self.model = model if isinstance(model, nn.Module) else Function(model)
        self.text, self.learned, self.normalisation, self.seed, self.view = text, learned, normalisation, seed, view
        self.classifier, self.calls = None, 0
        self.training = False

    def forward(self, images: Images) -> Logits:
        """Logits of shape (n, classes), or (n, classes + 1) of a detector."""
        check_evaluation_mode(self.model)
        if self.classifier is None:
            self.classifier = self._protected(images.detach())
        rng = Streams.of(self.seed, torch.arange(len(images), device=images.device)).derive(f"call {self.calls}")
        self.calls += 1
        return self.classifier(images, rng)

    def train(self, mode: bool = True) -> Self:
        """It stays in evaluation mode; the mode of the bare model is for its owner to change."""
        return self

    def through(self, view: str) -> DefendedModel:
        """What an adaptive attacker differentiates, such as `exact` or `bpda`; the same defense for all views."""
        return DefendedModel(self.model, self.text, self.learned, self.normalisation, self.seed, view)

    def _protected(self, images: Images) -> Classifier:
        bare = classifier_of(self.model, checked_images(images), *self.normalisation)
        defense = _defense_for(self.text, images, bare)
        if self.view is None:
            return defense.protect(bare, self.learned)
        views = defense.attacker_views(bare, self.learned)
        check_known(self.view, views, f"view of {self.text}")
        return views[self.view]


def defend_model(
    model: AnyModel,
    defense: str,
    *,
    training: tuple[Images, Labels] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    seed: int = 0,
    plugins: Sequence[str | Path] = (),
    progress: Callable[[float, str], None] | None = None,
) -> DefendedModel:
    """A model behind a defense, as a torch module; nothing is kept on disk.

    Args:
        model: a torch module in evaluation mode, or a function, as for `bench.evaluate`.
        defense: such as "jpeg:quality=30+median".
        training: images, float32 NCHW in [0, 1], and their labels, for a defense that learns; it learns now.
        mean, std: normalisation of images in [0, 1] in front of the model; by default it normalises them itself.
        seed: of the training, and of a random defense.
        plugins: files with defenses of your own.
        progress: called with the fraction done (0 … 1) and what is being done, if it learns.

    Raises:
        InputError: there is no such defense, it needs training images, or they do not fit. Whether it fits the
            images shows only in the first call.

    Example:
        >>> logits = bench.defend(model, "jpeg")(images)
    """
    load_plugins([Path(path) for path in plugins])
    made, learned = make_defense(defense), Artifact()
    if made.sees_originals:
        raise InputError(f"{defense} needs the original of each attacked image, so it cannot be called on its own.")
    if made.learns:
        if training is None:
            raise InputError(f"{defense} learns from training images. Pass training=(images, labels).")
        learned = _learned(model, defense, training, (mean, std), seed, progress or (lambda share, doing: None))
    return DefendedModel(model, defense, learned, (mean, std), seed)


def _learned(
    model: AnyModel,
    text: str,
    training: tuple[Images, Labels],
    normalisation: Normalisation,
    seed: int,
    progress: Callable[[float, str], None],
) -> Artifact:
    images, device = checked_images(training[0], "training images"), device_of(model, training[0])
    bare = classifier_of(model, images.to(device), *normalisation)
    labels = checked_labels(training[1], images, bare.num_classes, "training labels")
    blank = torch.full_like(images[:1], 0.5), labels[:1]  # nothing is evaluated here
    dataset = dataset_of(*blank, (images, labels), list(map(str, range(bare.num_classes))))
    name = model_name(model, bare, images.to(device))
    setting = Setting(dataset.name, name, seed=seed, device=str(device), memory=InMemory(dataset, bare))
    with temporary_cache(), without_weight_gradients(bare):
        return learn(_defense_for(text, images, bare), Testbed(setting), progress).artifact


def _defense_for(text: str, images: Images, model: Classifier) -> Defense:
    """The defense; raises InputError or NotApplicableError if it does not fit images or classes."""
    defense = make_defense(text)
    defense.check((images.shape[1], images.shape[2], images.shape[3]), model.num_classes)
    return defense
