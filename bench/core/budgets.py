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

    Results are comparable only if their budgets print the same.
    """

    threat_model: ClassVar[str]

    @abstractmethod
    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Which adversarial images keep the rule; both tensors are in [0, 1], of the same shape and type."""

    def box(self, height: int, width: int) -> tuple[int, int] | None:
        """Height and width of the smallest upright box that holds any change, or None if every pixel may change."""
        return None


def _changed(images: Images, adversarial: Images) -> Bool[Tensor, "n h w"]:
    return (images != adversarial).any(1)


def number(value: float) -> str:
    """A number as this field writes it: a fraction of 255 such as 8/255, or a short decimal."""
    over = Fraction(value * 255).limit_denominator(2)
    if abs(float(f"{value:.4g}") - value) > 1e-9 and abs(float(over) / 255 - value) < 1e-9:
        return f"{over.numerator}/{255 * over.denominator}"
    return f"{value:g}"


@dataclass(frozen=True)
class Linf(Budget):
    """Every value changes by at most `eps`, for values in [0, 1]."""

    eps: float
    threat_model: ClassVar[str] = "linf"

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Compares in the type of the images, in which a correct attack may reach exactly x + eps."""
        inside = (adversarial <= images + self.eps) & (adversarial >= images - self.eps)
        return inside.flatten(1).all(1)

    def __str__(self) -> str:
        return f"L∞ ≤ {number(self.eps)}"


@dataclass(frozen=True)
class L2(Budget):
    """The Euclidean norm of the change is at most `eps`, for values in [0, 1]."""

    eps: float
    threat_model: ClassVar[str] = "l2"

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Sums in float64, and allows for the rounding of the images' type."""
        length = (adversarial.double() - images.double()).flatten(1).norm(dim=1)
        kept: Tensor = length <= self.eps * (1 + 1e-5) + 1e-6
        return kept

    def __str__(self) -> str:
        return f"L2 ≤ {number(self.eps)}"


@dataclass(frozen=True)
class Pixels(Budget):
    """At most `count` pixels change, in any of their channels, and each value by at most `eps`."""

    count: int
    eps: float = 1.0
    threat_model: ClassVar[str] = "pixels"

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Counts the pixels with any change."""
        few = _changed(images, adversarial).sum((1, 2)) <= self.count
        return few & Linf(self.eps).allows(images, adversarial)

    def box(self, height: int, width: int) -> tuple[int, int]:
        """One pixel; or, for more of them, which may be anywhere, the whole image."""
        return (1, 1) if self.count == 1 else (height, width)

    def __str__(self) -> str:
        cap = "" if self.eps >= 1 else f", L∞ ≤ {number(self.eps)}"
        return f"{self.count} pixel{'s' if self.count > 1 else ''}{cap}"


@dataclass(frozen=True)
class Patch(Budget):
    """One compact region of the image may change without limit.

    Compact means that the changed pixels fit into an upright box of a certain size.

    Attributes:
        area: the largest fraction of the image that may change, in (0, 1].
        turned: whether the patch may be turned by any angle. The box is then as long as the diagonal of a square of
            that area; otherwise it is the upright square itself.
    """

    area: float
    turned: bool = True
    threat_model: ClassVar[str] = "patch"

    def pixels(self, height: int, width: int) -> int:
        """The number of pixels that the patch may cover on an image of this size, at least one."""
        return max(1, round(self.area * height * width))

    def box(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the smallest upright box into which every patch on such an image fits."""
        pixels = self.pixels(height, width)
        side = math.isqrt(pixels - 1) + 1
        if self.turned and pixels > 1:
            # Half of the image or more is always compact.
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
    """Distance from the first to the last mark, both included; 0 without a mark."""
    length = marked.shape[1]
    first = marked.int().argmax(1)
    last = length - 1 - marked.flip(1).int().argmax(1)
    return torch.where(marked.any(1), last - first + 1, 0)
