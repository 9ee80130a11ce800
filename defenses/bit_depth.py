"""Bit depth reduction: rounds each value to fewer levels.

Xu, Evans, Qi, "Feature squeezing" (arXiv 1704.01155); Guo et al. (arXiv 1711.00117) and Naseer et al.
(arXiv 1807.01216) with 3 bits.

    y = round(x (2^depth − 1)) / (2^depth − 1)

There are exactly 2^depth levels, including black and white. Rounding has no gradient; the attacker uses that of the
identity (BPDA).
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import Images, Streams, Transform

from ._ranges import within


@dataclass(frozen=True)
class BitDepth(Transform):
    """Bit depth reduction: rounds values to a few levels.

    Attributes:
        depth: bits per channel, 1 to 8.
    """

    depth: int = 3

    title = "bit depth"
    paper = "Xu et al. 2018, arXiv 1704.01155"
    views = ("bpda",)
    presets = {"paper": {"depth": 3}}

    def __post_init__(self) -> None:
        within("a depth in bits", self.depth, 1, 8, "the papers use 1 to 5")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The rounded images."""
        return rounded(images, self.depth)


def rounded(images: Images, depth: int) -> Images:
    """The images with values rounded to 2^depth levels."""
    steps = (1 << depth) - 1
    return (images * steps).round() / steps
