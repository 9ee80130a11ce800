"""The classifiers that a patch is learned on in turn: the one under attack, others, or both.

They are written as a list with semicolons. `victim` is the model under attack; any other is a model as in
`bench run --model`, with `&` instead of commas, and `@FILE` for its weights:

    victim;photos-cnn;timm:mobilenetv2_100&pad_type=same@mobilenet.safetensors
"""

from __future__ import annotations

from pathlib import Path

from bench.contracts import Classifier, Goal, Images, InputError, Model, Streams
from bench.models import load_model, python_module

VICTIM = "victim"


def split(models: str) -> list[str]:
    """The models of the list; raises ValueError if one is empty."""
    texts = [text.strip() for text in models.split(";")]
    if not all(texts):
        raise ValueError(
            f"Expected models as a list such as victim;photos-cnn or resnet20@weights.safetensors, but got {models!r}."
        )
    return texts


def teacher_files(models: str) -> tuple[Path, ...]:
    """The files of weights in the list."""
    return tuple(Path(weights) for _, weights in map(_parsed, split(models)) if weights)


def teacher_modules(models: str) -> tuple[str, ...]:
    """The modules of `python:` models in the list."""
    return tuple(module for name, _ in map(_parsed, split(models)) if (module := python_module(name)))


def check_teachers(models: str, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raises InputError if one of the models cannot be loaded for such images (c, h, w) and classes."""
    for text in split(models):
        if text != VICTIM:
            _load(text, image_shape, num_classes)


def teachers(models: str, model: Model, images: Images, goal: Goal, rng: Streams) -> list[tuple[Model, Goal]]:
    """Each model, for the training images, with the goal to attack it with.

    Args:
        models: the list.
        model: the victim, for these images; not queried unless `models` names it.
        images, goal, rng: as for `UniversalAttack.learn`.
    """
    plain = Goal(goal.labels, goal.targets)  # a defended victim may reject; the other models cannot

    def teacher(text: str) -> tuple[Model, Goal]:
        if text == VICTIM:
            return model, goal
        channels, height, width = images.shape[1:]
        classifier = _load(text, (channels, height, width), model.num_classes)
        return Model(classifier.to(images), rng.derive(text)), plain

    return [teacher(text) for text in split(models)]


def _parsed(text: str) -> tuple[str, str]:
    """A model's text for `load_model`, and its file of weights or ""."""
    name, _, weights = text.partition("@")
    return name.replace("&", ","), weights


def _load(text: str, image_shape: tuple[int, int, int], num_classes: int) -> Classifier:
    name, weights = _parsed(text)
    try:
        return load_model(
            name,
            num_classes=num_classes,
            image_shape=image_shape,
            weights=Path(weights) if weights else None,
        )
    except InputError as error:
        raise InputError(f"The patch cannot be learned on {text!r}: {error}") from error
