"""The classifiers that a patch is learned on in turn: the one under attack, others beside it, or others in its place.

The text form is models with semicolons between them. `victim` is the model under attack; any other is a text of
`bench.models`, with `&` where that has commas, and `@FILE` for its weights:

    victim;photos-cnn;timm:mobilenetv2_100&pad_type=same@mobilenet.safetensors
"""

from __future__ import annotations

from pathlib import Path

from bench.contracts import Classifier, Goal, Images, InputError, Model, Streams
from bench.models import load_model

VICTIM = "victim"


def split(models: str) -> list[str]:
    """The texts of the models, in turn; raises ValueError where there is none."""
    texts = [one.strip() for one in models.split(";")]
    if not all(texts):
        raise ValueError(f"models is a list such as victim;photos-cnn or resnet20@weights.safetensors; got {models!r}.")
    return texts


def check_teachers(models: str, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raises InputError where one of the models cannot be had for such images (c, h, w) and classes."""
    for text in split(models):
        if text != VICTIM:
            _load(text, image_shape, num_classes)


def teachers(models: str, model: Model, images: Images, goal: Goal, rng: Streams) -> list[tuple[Model, Goal]]:
    """Each model for the training images, with the goal on it.

    Args:
        models: their texts.
        model: the victim, for these images; it is asked nothing where it is not among `models`.
        images, goal, rng: as for `UniversalAttack.learn`.
    """
    plain = Goal(goal.labels, goal.targets)  # a defended victim may reject; the others have no logit for that

    def made(text: str) -> tuple[Model, Goal]:
        if text == VICTIM:
            return model, goal
        channels, height, width = images.shape[1:]
        classifier = _load(text, (channels, height, width), model.num_classes)
        return Model(classifier.to(images), rng.derive(text)), plain

    return [made(text) for text in split(models)]


def _load(text: str, image_shape: tuple[int, int, int], num_classes: int) -> Classifier:
    name, _, weights = text.partition("@")
    try:
        return load_model(
            name.replace("&", ","),
            num_classes=num_classes,
            image_shape=image_shape,
            weights=Path(weights) if weights else None,
        )
    except InputError as error:
        raise InputError(f"The patch cannot be learned on {text!r}: {error}") from error
