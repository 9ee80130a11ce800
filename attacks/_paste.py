"""The one way in which patches are laid onto images: a whole batch at once, each image with its own place.

An attack derives from `Placed`, which brings the parameters (area, shape, rotation, scale, location) with their
checks and the budget, and then writes

    placement = self.place(images, rng.derive("placement"))
    adversarial = paste(images, patch, placement)

Attacks with the same parameters and the same `rng` cover the same pixels, whatever they put there: that makes
`occlusion` and `random-patch` honest controls. `patch` may require gradients; those of the images are untouched.

The content is sampled bilinearly. What is covered is not: exactly the pixels that the budget grants, those nearest
to the centre, belong to the patch, and every other pixel keeps its bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Images, InputError, Patch, Streams

Shape = Literal["square", "disc"]
Location = Literal["random", "border", "corner", "fixed"]


def side_of(pixels: int, shape: Shape) -> int:
    """Side of the box around a patch of that many pixels, in pixels; also the resolution worth giving its content."""
    return math.isqrt(pixels - 1) + 1 if shape == "square" else math.ceil(2 * math.sqrt(pixels / math.pi))


@dataclass(frozen=True)
class Placement:
    """Where each image's patch lies.

    Attributes:
        corners: row and column of the upper left pixel of the box that the turned patch fits into, shape (n, 2).
        boxes: height and width of that box in pixels, shape (n, 2).
        sides: side of the unturned patch in pixels, shape (n,).
        angles: how far it is turned, in radians, shape (n,).
        pixels: how many pixels it covers, shape (n,).
        shape: square or disc.
    """

    corners: Int[Tensor, "n 2"]
    boxes: Int[Tensor, "n 2"]
    sides: Float[Tensor, "n"]
    angles: Float[Tensor, "n"]
    pixels: Int[Tensor, "n"]
    shape: Shape = "square"

    def __getitem__(self, rows: Tensor | slice) -> Placement:
        corners, boxes, sides = self.corners[rows], self.boxes[rows], self.sides[rows]
        return Placement(corners, boxes, sides, self.angles[rows], self.pixels[rows], self.shape)

    def moved(self, shifts: Int[Tensor, "n 2"], height: int, width: int) -> Placement:
        """The same patches, moved by that many rows and columns, as far as the image goes."""
        room = torch.tensor([height, width], device=self.boxes.device) - self.boxes
        return replace(self, corners=torch.minimum((self.corners + shifts).clamp(min=0), room))

    def mask(self, height: int, width: int) -> Bool[Tensor, "n h w"]:
        """Which pixels of an image are covered: exactly `pixels` of them."""
        nearest, covered, _, _ = self.nearest(height, width)
        empty = torch.zeros(len(nearest), height * width, dtype=torch.bool, device=nearest.device)
        return empty.scatter(1, nearest, covered).reshape(-1, height, width)

    def nearest(
        self, height: int, width: int
    ) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"], Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """The pixels nearest to the centre, nearest first, as many as the largest patch covers.

        Returns:
            Their indices, row by row; whether this image's patch covers them; and their places in the upright patch:
            pixels to the right of its centre, and below it.
        """
        centres = self.corners + self.boxes / 2
        down = (torch.arange(height, device=centres.device) + 0.5 - centres[:, :1])[:, :, None]
        right = (torch.arange(width, device=centres.device) + 0.5 - centres[:, 1:])[:, None, :]
        cosine, sine = self.angles.cos()[:, None, None], self.angles.sin()[:, None, None]
        x, y = (right * cosine + down * sine).flatten(1), (down * cosine - right * sine).flatten(1)
        distance = torch.maximum(x.abs(), y.abs()) if self.shape == "square" else (x * x + y * y).sqrt()
        # Whole numbers with the pixel's index in the last place: no two are equal, so the count is exact.
        index = torch.arange(height * width, device=distance.device)
        order = (distance * 4096).round().to(torch.int64) * len(index) + index
        nearest = order.topk(int(self.pixels.max()), largest=False, sorted=True).indices
        covered = torch.arange(nearest.shape[1], device=nearest.device) < self.pixels[:, None]
        return nearest, covered, x.gather(1, nearest), y.gather(1, nearest)


def paste(images: Images, patch: Float[Tensor, "c s s"] | Float[Tensor, "n c s s"], placement: Placement) -> Images:
    """Lays the patch over each image where `placement` says.

    Args:
        images: shape (n, c, h, w), in [0, 1].
        patch: one for all images or one for each, in [0, 1], any resolution; where its side is
            `side_of(pixels, shape)`, an unturned patch of scale 1 arrives pixel for pixel.
        placement: one place for each image.

    Returns:
        New images; bit for bit the given ones outside the patch.
    """
    nearest, covered, x, y = placement.nearest(*images.shape[2:])
    content = _sampled(patch.expand(len(images), *patch.shape[-3:]), x, y, placement.sides)
    at, flat = nearest[:, None].expand_as(content), images.flatten(2)
    content = torch.where(covered[:, None], content, flat.gather(2, at))
    return flat.scatter(2, at, content).reshape(images.shape)


def _sampled(patch: Float[Tensor, "n c s s"], x: Tensor, y: Tensor, sides: Tensor) -> Float[Tensor, "n c k"]:
    """The patch's values at coordinates in pixels from its centre; outside, those of its edge."""
    side = patch.shape[-1]
    zoom = (side / sides)[:, None]
    # grid_sample wants coordinates in [-1, 1]; on a side that is a power of two they are exact.
    exact = 1 << (side - 1).bit_length()
    padded = F.pad(patch, (0, exact - side, 0, exact - side), mode="replicate") if exact > side else patch
    grid = torch.stack([x * zoom, y * zoom], dim=-1)[:, :, None] * (2 / exact) + (side / exact - 1)
    content = F.grid_sample(padded, grid.to(patch.dtype), padding_mode="border", align_corners=False)[..., 0]
    # Rounding in the weights may lift a value over 1; a clamp would stop the gradient there, this does not.
    return content - (content.detach() - 1).clamp(min=0)


@dataclass(frozen=True)
class Placed:
    """The parameters that all patches share.

    Attributes:
        area: share of the image's pixels that the patch may cover, in (0, 1].
        shape: square or disc.
        rotation: turned by a random angle between −rotation and +rotation, in degrees, 0 to 180.
        scale: each image's patch has a random side between these shares of the full one, in (0, 1].
        location: anywhere, along the image's border, in one of its corners, or `at` a fixed place.
        at: row and column of the patch's upper left corner in pixels, for `location=fixed`.
    """

    area: float = 0.1
    shape: Shape = "square"
    rotation: float = 22.5
    scale: tuple[float, float] = (0.8, 1.0)
    location: Location = "random"
    at: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not 0 < self.area <= 1:
            raise ValueError(f"area is a share of the image in (0, 1], such as 0.1; got {self.area}.")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation is in degrees, from 0 to 180; got {self.rotation}.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is low:high with 0 < low <= high <= 1, such as 0.8:1; got {self.scale}.")
        if min(self.at) < 0:
            raise ValueError(f"at is row:column of the patch's upper left corner, 0:0 or more; got {self.at}.")

    @property
    def budget(self) -> Patch:
        """One region of that area, freely; a disc needs a larger box than an upright square."""
        return Patch(self.area, turned=self.rotation > 0 or self.shape == "disc")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where the patch does not fit into the image."""
        _, height, width = image_shape
        side = self.side(height, width)
        if side > min(height, width):
            raise InputError(
                f"A {self.shape} of {self.area:.3g} of the area is {side} pixels wide and does not fit into "
                f"{height}×{width} images. Choose a smaller area."
            )
        if self.location == "fixed" and (self.at[0] + side > height or self.at[1] + side > width):
            raise InputError(
                f"A patch of {side}×{side} pixels at row {self.at[0]}, column {self.at[1]} leaves the {height}×{width} "
                f"image. Choose at most at={height - side}:{width - side}."
            )

    def side(self, height: int, width: int) -> int:
        """Side of the patch's box on such an image in pixels, at scale 1."""
        return side_of(self.budget.pixels(height, width), self.shape)

    def place(self, images: Images, rng: Streams) -> Placement:
        """A random place for each image; the same for every attack with these parameters and this `rng`."""
        height, width = images.shape[2:]
        pixels = self.budget.pixels(height, width)
        turn, size = rng.uniform(2).unbind(1)
        angles = (2 * turn - 1) * math.radians(self.rotation)
        scales = self.scale[0] + (self.scale[1] - self.scale[0]) * size
        sides = scales * self.side(height, width)
        spread = angles.cos().abs() + angles.sin().abs() if self.shape == "square" else 1
        box = (sides * spread - 1e-4).ceil().to(torch.int64)  # the upright box around the turned patch
        boxes = torch.stack([box.clamp(max=height), box.clamp(max=width)], dim=1)
        room = torch.tensor([height, width], device=rng.device) - boxes
        corners = self._corners(room, rng)
        covered = (scales.double() ** 2 * pixels).round().to(torch.int64).clamp(1, pixels)
        return Placement(corners, boxes, sides, angles, covered, self.shape)

    def _corners(self, room: Int[Tensor, "n 2"], rng: Streams) -> Int[Tensor, "n 2"]:
        """Upper left corners, each coordinate from 0 to its `room`, both included."""
        if self.location == "fixed":
            return torch.minimum(torch.tensor(self.at, device=room.device), room)
        if self.location == "corner":
            return rng.integers(2, 2) * room
        corners = rng.integers(room + 1, 2)
        if self.location == "border":
            edge = rng.integers(4)
            axis, far = edge % 2, edge // 2
            on_edge = F.one_hot(axis, 2).bool()
            corners = torch.where(on_edge, far[:, None] * room, corners)
        return corners
