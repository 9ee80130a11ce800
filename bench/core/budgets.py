"""What an attacker may change: budgets that can be audited on any pair of images."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Images = Float[Tensor, "n c h w"]


class Budget(ABC):
    """A rule for how far an adversarial image may be from its original.

    Two results may be compared only if their budgets are equal as printed.
    """

    threat_model: ClassVar[str]

    @abstractmethod
    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Which adversarial images keep the rule; both in [0, 1], of one shape and type."""


def _changed(images: Images, adversarial: Images) -> Bool[Tensor, "n h w"]:
    return (images != adversarial).any(1)


def number(value: float) -> str:
    """A number as people write it in this field: 8/255 where it is one, else a short decimal."""
    over = Fraction(value * 255).limit_denominator(2)
    if abs(float(f"{value:.4g}") - value) > 1e-9 and abs(float(over) / 255 - value) < 1e-9:
        return f"{over.numerator}/{255 * over.denominator}"
    return f"{value:g}"


@dataclass(frozen=True)
class Linf(Budget):
    """Every value moves by at most `eps` (a share of the range [0, 1])."""

    eps: float
    threat_model: ClassVar[str] = "linf"

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Compares in the images' own type: x + eps is what a correct attack can reach, bit for bit."""
        inside = (adversarial <= images + self.eps) & (adversarial >= images - self.eps)
        return inside.flatten(1).all(1)

    def __str__(self) -> str:
        return f"L∞ ≤ {number(self.eps)}"


@dataclass(frozen=True)
class L2(Budget):
    """The Euclidean length of the change is at most `eps` (values in [0, 1])."""

    eps: float
    threat_model: ClassVar[str] = "l2"

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Sums in float64 and leaves room for the rounding of the images' own type."""
        length = (adversarial.double() - images.double()).flatten(1).norm(dim=1)
        kept: Tensor = length <= self.eps * (1 + 1e-5) + 1e-6
        return kept

    def __str__(self) -> str:
        return f"L2 ≤ {number(self.eps)}"


@dataclass(frozen=True)
class Pixels(Budget):
    """At most `count` pixels change, all channels of a pixel counting as one; each value by at most `eps`."""

    count: int
    eps: float = 1.0
    threat_model: ClassVar[str] = "pixels"

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Counts the pixels with any change."""
        few = _changed(images, adversarial).sum((1, 2)) <= self.count
        return few & Linf(self.eps).allows(images, adversarial)

    def __str__(self) -> str:
        cap = "" if self.eps >= 1 else f", L∞ ≤ {number(self.eps)}"
        return f"{self.count} pixel{'s' if self.count > 1 else ''}{cap}"


@dataclass(frozen=True)
class Patch(Budget):
    """One compact region of at most `area` of the image (a share in (0, 1]) changes, freely.

    Compact: the changed pixels fit into an upright box, which depends on whether the patch may be turned.

    Attributes:
        area: share of the image, in (0, 1].
        turned: whether a square of that area may be turned by any angle (the box is as long as its diagonal); if
            not, the box is the upright square itself.
    """

    area: float
    turned: bool = True
    threat_model: ClassVar[str] = "patch"

    def pixels(self, height: int, width: int) -> int:
        """How many pixels of an image of this size the patch may cover (at least one)."""
        return max(1, round(self.area * height * width))

    def box(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the smallest upright box that every patch on such an image fits into."""
        pixels = self.pixels(height, width)
        side = math.isqrt(pixels - 1) + 1
        if self.turned and pixels > 1:
            # Half of the image or more is compact wherever it lies.
            side = math.ceil(math.sqrt(2 * pixels)) + 1 if self.area < 0.5 else max(height, width)
        return min(side, height), min(side, width)

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Counts the changed pixels and measures the box around them."""
        changed = _changed(images, adversarial)
        height, width = changed.shape[1:]
        tall, wide = self.box(height, width)
        fits = (_extent(changed.any(2)) <= tall) & (_extent(changed.any(1)) <= wide)
        return (changed.sum((1, 2)) <= self.pixels(height, width)) & fits

    def __str__(self) -> str:
        return f"{'' if self.turned else 'upright '}patch ≤ {100 * self.area:.3g} %"


def _extent(marked: Bool[Tensor, "n length"]) -> Tensor:
    """Distance from the first to the last mark, both included; 0 where there is none."""
    length = marked.shape[1]
    first = marked.int().argmax(1)
    last = length - 1 - marked.flip(1).int().argmax(1)
    return torch.where(marked.any(1), last - first + 1, 0)
