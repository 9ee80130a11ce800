"""A model that is judged on some of its classes, as an ImageNet model on Imagenette."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.errors import InputError
from bench.models.nets import logits_of


class Subset(nn.Module):
    """A network with the logits of some of its classes only: an image counts as the likeliest of these."""

    places: Tensor

    def __init__(self, network: nn.Module, places: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("places", torch.tensor(places))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of shape (n, classes of the data set)."""
        return logits_of(self.network(images))[:, self.places]


def read_class_names(path: Path) -> list[str]:
    """The names of a model's classes in a file, one on each line in the order of its logits."""
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"Expected classes= to name a file with a class on each line, but {path}: {error}.") from error
    names = names[: len(names) - names[::-1].index(next(filter(None, names[::-1]), ""))] if any(names) else []
    if len(set(names)) < len(names) or len(names) < 2:
        raise InputError(
            f"Expected the names of the model's classes in {path}, each once on a line of its own in the order of its "
            f"logits, but got {len(names)} lines with {len(set(names))} names."
        )
    return names


def places_of(classes: Sequence[str], names: Sequence[str], path: Path) -> list[int]:
    """The place of each class of a data set among those of a model; raises InputError if one is missing."""
    places = {name: place for place, name in enumerate(names)}
    missing = [name for name in classes if name not in places]
    if missing or not classes:
        raise InputError(
            f"Expected each class of the data set in {path}, but {len(missing)} are missing, such as "
            f"{missing[:1] or '(the data set names no classes)'}. Its lines are names such as {', '.join(names[:3])}."
        )
    return [places[name] for name in classes]
