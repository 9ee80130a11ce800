"""What a model must fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Requirements:
    """What a model must fit.

    Attributes:
        num_classes, image_shape: of the data set; the shape is (c, h, w).
        weights: a file that will be loaded into it, or None.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    weights: Path | None = None

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.image_shape[0]

    def refusal(self, model: str, answers: int | str) -> str:
        """The error message for a model with another number of classes."""
        return (
            f"Expected a model for the data set's {self.num_classes} classes, but {model} answers with {answers}. "
            "Choose a data set, a model or weights that fit."
        )
