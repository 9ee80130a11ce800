"""Occlusion: the control for patches. It covers the same pixels with plain grey and so measures what covering does.

With the same parameters and seed it covers the same pixels as `patch` and `random-patch`; any effect of a patch beyond
that of occlusion is adversarial.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import Attack, Goal, Images, Model, Streams

from ._paste import Placed, paste


@dataclass(frozen=True)
class Occlusion(Placed, Attack):
    """A plain grey patch: the effect of covering alone.

    Attributes:
        grey: brightness of the patch, from 0 to 1.
    """

    grey: float = 0.5

    title = "Occlusion"
    presets = {"quick": {}, "paper": {"shape": "disc", "scale": (1.0, 1.0)}}
    access = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.grey <= 1:
            raise ValueError(f"Expected grey to be a brightness from 0 to 1, but got {self.grey}.")

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The images with grey patches."""
        patch = images.new_full((images.shape[1], 1, 1), self.grey)
        return paste(images, patch, self.place(images, rng.derive("placement")))
