"""Places and pastes patches: a whole batch at once, each image at its own place.

An attack derives from `Placed`, which provides the parameters (area, shape, rotation, scale, location) with their
checks and the budget, and then writes

    placement = self.place(images, rng.derive("placement"))
    adversarial = paste(images, patch, placement)

Attacks with the same parameters and the same `rng` cover the same pixels whatever they paste, which makes `occlusion`
and `random-patch` honest controls. Gradients flow to `patch` and to the images.

The content is interpolated bilinearly, but the outline is exact: the patch consists of as many pixels as the budget
allows, those nearest to its centre, and all other pixels stay bit for bit as they are.
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
    """Side in pixels of the box around a patch of so many pixels; also the resolution that its content needs."""
    return math.isqrt(pixels - 1) + 1 if shape == "square" else math.ceil(2 * math.sqrt(pixels / math.pi))


@dataclass(frozen=True)
class Placement:
    """Where the patch lies in each image.

    Attributes:
        corners: row and column of the upper left pixel of the box around the rotated patch, shape (n, 2).
        boxes: height and width of that box in pixels, shape (n, 2).
        sides: side of the unrotated patch in pixels, shape (n,).
        angles: rotation in radians, shape (n,).
        pixels: number of covered pixels, shape (n,).
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
        """The same patches, shifted by so many rows and columns but kept inside the image."""
        room = torch.tensor([height, width], device=self.boxes.device) - self.boxes
        return replace(self, corners=torch.minimum((self.corners + shifts).clamp(min=0), room))

    def mask(self, height: int, width: int) -> Bool[Tensor, "n h w"]:
        """The covered pixels of each image, exactly `pixels` of them."""
        nearest, covered, _, _ = self.nearest(height, width)
        empty = torch.zeros(len(nearest), height * width, dtype=torch.bool, device=nearest.device)
        return empty.scatter(1, nearest, covered).reshape(-1, height, width)

    def nearest(
        self, height: int, width: int
    ) -> tuple[Int[Tensor, "n k"], Bool[Tensor, "n k"], Float[Tensor, "n k"], Float[Tensor, "n k"]]:
        """The pixels nearest to the patch's centre, nearest first, as many as the largest patch covers.

        Returns:
            Their flat indices; whether the image's own patch covers them; and their coordinates in the upright patch,
            in pixels to the right of its centre and below it.
        """
        centres = self.corners + self.boxes / 2
        down = (torch.arange(height, device=centres.device) + 0.5 - centres[:, :1])[:, :, None]
        right = (torch.arange(width, device=centres.device) + 0.5 - centres[:, 1:])[:, None, :]
        cosine, sine = self.angles.cos()[:, None, None], self.angles.sin()[:, None, None]
        x, y = (right * cosine + down * sine).flatten(1), (down * cosine - right * sine).flatten(1)
        distance = torch.maximum(x.abs(), y.abs()) if self.shape == "square" else (x * x + y * y).sqrt()
        # Integers whose last digits are the pixel's index: no two are equal, so the count is exact.
        index = torch.arange(height * width, device=distance.device)
        order = (distance * 4096).round().to(torch.int64) * len(index) + index
        nearest = order.topk(int(self.pixels.max()), largest=False, sorted=True).indices
        covered = torch.arange(nearest.shape[1], device=nearest.device) < self.pixels[:, None]
        return nearest, covered, x.gather(1, nearest), y.gather(1, nearest)


def paste(images: Images, patch: Float[Tensor, "c s s"] | Float[Tensor, "n c s s"], placement: Placement) -> Images:
    """Pastes the patch into each image.

    Args:
        images: shape (n, c, h, w), in [0, 1].
        patch: one for all images or one per image, in [0, 1], of any resolution; if its side is
            `side_of(pixels, shape)`, an unrotated patch of scale 1 is copied pixel for pixel.
        placement: one place per image.

    Returns:
        New images, bit for bit the given ones outside the patch.
    """
    nearest, covered, x, y = placement.nearest(*images.shape[2:])
    content = _sampled(patch.expand(len(images), *patch.shape[-3:]), x, y, placement.sides)
    at, flat = nearest[:, None].expand_as(content), images.flatten(2)
    content = torch.where(covered[:, None], content, flat.gather(2, at))
    return flat.scatter(2, at, content).reshape(images.shape)


def _sampled(patch: Float[Tensor, "n c s s"], x: Tensor, y: Tensor, sides: Tensor) -> Float[Tensor, "n c k"]:
    """The patch's values at coordinates in pixels from its centre; outside, the values of its edge."""
    side = patch.shape[-1]
    zoom = (side / sides)[:, None]
    # grid_sample takes coordinates in [-1, 1], which are exact if the side is a power of two.
    exact = 1 << (side - 1).bit_length()
    padded = F.pad(patch, (0, exact - side, 0, exact - side), mode="replicate") if exact > side else patch
    grid = torch.stack([x * zoom, y * zoom], dim=-1)[:, :, None] * (2 / exact) + (side / exact - 1)
    content = F.grid_sample(padded, grid.to(patch.dtype), padding_mode="border", align_corners=False)[..., 0]
    # Rounded weights may lift a value above 1. Unlike a clamp, this subtraction keeps the gradient there.
    return content - (content.detach() - 1).clamp(min=0)


@dataclass(frozen=True)
class Placed:
    """The parameters that all patch attacks share.

    Attributes:
        area: share of the image's pixels that the patch may cover, in (0, 1].
        shape: square or disc.
        rotation: largest angle in degrees, 0 to 180; each patch is rotated by a random one, either way.
        scale: range of the random side of each patch, as shares of the full side, in (0, 1].
        location: anywhere (`random`), at the image's `border`, in a `corner`, or at a `fixed` place.
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
            raise ValueError(f"Expected area to be a share of the image in (0, 1], such as 0.1, but got {self.area}.")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"Expected rotation to be 0 to 180 degrees, but got {self.rotation}.")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                f"Expected scale as low:high with 0 < low ≤ high ≤ 1, such as 0.8:1, but got {self.scale}."
            )
        if min(self.at) < 0:
            raise ValueError(f"Expected at to be row:column of the patch's corner, at least 0:0, but got {self.at}.")

    @property
    def budget(self) -> Patch:
        """One region of that area, changed freely; a disc needs a larger box than an upright square."""
        return Patch(self.area, turned=self.rotation > 0 or self.shape == "disc")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError if the patch does not fit into the image."""
        _, height, width = image_shape
        side = self.side(height, width)
        if side > min(height, width):
            raise InputError(
                f"A {self.shape} of area {self.area:.3g} is {side} pixels wide and does not fit into {height}×{width} "
                "images. Choose a smaller area."
            )
        if self.location == "fixed" and (self.at[0] + side > height or self.at[1] + side > width):
            raise InputError(
                f"A patch of {side}×{side} pixels at row {self.at[0]}, column {self.at[1]} leaves the {height}×{width} "
                f"image. Choose at most at={height - side}:{width - side}."
            )

    def side(self, height: int, width: int) -> int:
        """Side in pixels of the patch's box on an image of this size, at scale 1."""
        return side_of(self.budget.pixels(height, width), self.shape)

    def place(self, images: Images, rng: Streams) -> Placement:
        """A random place in each image, the same for every attack with these parameters and this `rng`."""
        height, width = images.shape[2:]
        pixels = self.budget.pixels(height, width)
        turn, size = rng.uniform(2).unbind(1)
        angles = (2 * turn - 1) * math.radians(self.rotation)
        scales = self.scale[0] + (self.scale[1] - self.scale[0]) * size
        sides = scales * self.side(height, width)
        spread = angles.cos().abs() + angles.sin().abs() if self.shape == "square" else 1
        box = (sides * spread - 1e-4).ceil().to(torch.int64)  # the upright box around the rotated patch
        boxes = torch.stack([box.clamp(max=height), box.clamp(max=width)], dim=1)
        room = torch.tensor([height, width], device=rng.device) - boxes
        corners = self._corners(room, rng)
        covered = (scales.double() ** 2 * pixels).round().to(torch.int64).clamp(1, pixels)
        return Placement(corners, boxes, sides, angles, covered, self.shape)

    def _corners(self, room: Int[Tensor, "n 2"], rng: Streams) -> Int[Tensor, "n 2"]:
        """Upper left corners; each coordinate is from 0 to its `room`, inclusive."""
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
