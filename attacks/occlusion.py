"""Occlusion: the control for patches. It covers the same pixels with plain grey, and so shows what covering alone does.

For the same parameters and seed the covered pixels are those of `patch` and `random-patch`; what a patch does
beyond its occlusion is adversarial.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import Attack, Goal, Images, Model, Streams

from ._paste import Placed, paste


@dataclass(frozen=True)
class Occlusion(Placed, Attack):
    """A plain grey patch: what covering alone does.

    Attributes:
        area: share of the image's pixels that the patch covers, in (0, 1].
        shape: square or disc.
        rotation: turned by a random angle between −rotation and +rotation, in degrees, 0 to 180.
        scale: each image's patch has a random side between these shares of the full one, in (0, 1].
        location: anywhere, along the image's border, in one of its corners, or `at` a fixed place.
        at: row and column of the patch's upper left corner in pixels, for `location=fixed`.
        grey: brightness of the patch, from 0 to 1.
    """

    grey: float = 0.5

    title = "Occlusion"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {},
        "paper": {"shape": "disc", "scale": (1.0, 1.0)},
    }
    access = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.grey <= 1:
            raise ValueError(f"grey is a brightness from 0 to 1; got {self.grey}.")

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The images with grey patches."""
        patch = images.new_full((images.shape[1], 1, 1), self.grey)
        return paste(images, patch, self.place(images, rng.derive("placement")))
