"""AutoPixel: an ensemble without parameters against a few pixels of each image in any colour.

The stages, each for the images that those before it leave:

    0  GreedyFool's greedy stage, then 100 exchanges of pixels at the ends of their range
    1  σ-zero with 300 steps
    2  every pixel in every corner colour, greedily for more than one pixel: scores alone
    3  Sparse-RS with 3,000 queries: scores alone
    4  400 exchanges

Ours; the idea of a fixed ensemble of attacks that fail differently is that of Croce and Hein (arXiv 2003.01690). The
record says which stage fooled an image first ("stage"). A published number belongs to its `version`, and what a
version does never changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._cascade import Cascade, Stage
from .autopatch import check_version
from .corner_pixel import CornerPixel
from .greedyfool import GreedyFool
from .sigma_zero import SigmaZero
from .sparse_rs import SparseRS


@dataclass(frozen=True)
class AutoPixel(Cascade):
    """The strongest of several attacks with a few pixels of any colour.

    Attributes:
        pixels: how many pixels may change, 1 or more.
        version: of the ensemble; 1.
    """

    pixels: int = 10
    version: int = 1

    title = "AutoPixel"
    paper = "ours, after Croce & Hein 2020, Reliable Evaluation of Adversarial Robustness, arXiv 2003.01690"
    access = "gradients"

    def __post_init__(self) -> None:
        check_version(self.version)
        _ = self.stages  # checks the pixels

    @property
    def stages(self) -> tuple[Stage, ...]:
        """As listed above."""
        return (
            Stage(GreedyFool(pixels=self.pixels, steps=self.pixels, reductions=0, exchanges=100)),
            Stage(SigmaZero(pixels=self.pixels, steps=300)),
            Stage(CornerPixel(pixels=self.pixels, share=1.0 if self.pixels == 1 else 0.1)),
            Stage(SparseRS(pixels=self.pixels, queries=3000)),
            Stage(GreedyFool(pixels=self.pixels, steps=2 * self.pixels, reductions=0, exchanges=400)),
        )
