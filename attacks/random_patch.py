"""Random patch: the second control for patches. It covers the same pixels with noise that was not optimised.

With the same parameters and seed it covers the same pixels as `patch` and `occlusion`.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import Attack, Goal, Images, Model, Streams

from ._paste import Placed, paste


@dataclass(frozen=True)
class RandomPatch(Placed, Attack):
    """A patch of noise: the effect of a conspicuous patch that was not optimised."""

    title = "Random patch"
    presets = {"quick": {}, "paper": {"shape": "disc", "scale": (1.0, 1.0)}}
    access = "none"

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The images with patches of uniform noise, drawn for each image."""
        side = self.side(*images.shape[2:])
        noise = rng.derive("content").uniform(images.shape[1], side, side).to(images.dtype)
        return paste(images, noise, self.place(images, rng.derive("placement")))
