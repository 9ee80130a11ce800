"""Random pixel: the control for pixel attacks. It paints random pixels in random colours, without asking the model.

It shows how much of a pixel attack's success is due to its search.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import Attack, Goal, Images, Model, Pixels, Streams

from ._variants import check_pixels, check_room, choose, paint


@dataclass(frozen=True)
class RandomPixel(Attack):
    """Control: random pixels in random colours.

    Attributes:
        pixels: how many pixels change, at least 1.
    """

    pixels: int = 1

    title = "Random pixel"
    access = "none"

    def __post_init__(self) -> None:
        check_pixels(self.pixels)

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError if the image has fewer pixels."""
        check_room(self.pixels, image_shape)

    @property
    def budget(self) -> Pixels:
        """So many pixels, changed freely."""
        return Pixels(self.pixels)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """Positions without repetition, colours uniform on the 8-bit grid."""
        _, channels, height, width = images.shape
        pixels = choose(rng, height * width, self.pixels)
        colours = rng.integers(256, self.pixels, channels).to(images.dtype) / 255
        return paint(images, pixels[:, None], colours[:, None])[:, 0]
