"""Random patch: the second control for patches. It covers the same pixels with noise that nobody optimised.

For the same parameters and seed the covered pixels are those of `patch` and `occlusion`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.contracts import Attack, Goal, Images, Model, Streams

from ._paste import Placed, paste


@dataclass(frozen=True)
class RandomPatch(Placed, Attack):
    """A patch of noise: what a conspicuous patch does that nobody optimised.

    Attributes:
        area: share of the image's pixels that the patch covers, in (0, 1].
        shape: square or disc.
        rotation: turned by a random angle between −rotation and +rotation, in degrees, 0 to 180.
        scale: each image's patch has a random side between these shares of the full one, in (0, 1].
        location: anywhere, along the image's border, in one of its corners, or `at` a fixed place.
        at: row and column of the patch's upper left corner in pixels, for `location=fixed`.
    """

    title = "Random patch"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {},
        "paper": {"shape": "disc", "scale": (1.0, 1.0)},
    }
    access = "none"

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The images with patches of uniform noise, another one for each image."""
        side = self.side(*images.shape[2:])
        noise = rng.derive("content").uniform(images.shape[1], side, side).to(images.dtype)
        return paste(images, noise, self.place(images, rng.derive("placement")))
