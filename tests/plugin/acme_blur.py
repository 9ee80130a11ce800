"""A defense from outside: the mean of each pixel and its neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.nn import functional as F

from bench.contracts import Images, Streams, Transform


@dataclass(frozen=True)
class Blur(Transform):
    """Replaces each pixel by the mean of the square around it.

    Attributes:
        size: side of the square in pixels, odd, 1 or more.
    """

    size: int = 3
    name: ClassVar[str] = "acme-blur"
    title: ClassVar[str] = "Acme blur"

    def __post_init__(self) -> None:
        """Refuses sizes that have no middle."""
        if self.size < 1 or self.size % 2 == 0:
            raise ValueError(f"Expected an odd size of at least 1, but got {self.size}.")

    def clean(self, images: Images, rng: Streams) -> Images:
        """Box filter; the border is repeated."""
        half = self.size // 2
        return F.avg_pool2d(F.pad(images, (half,) * 4, mode="replicate"), self.size, stride=1)
