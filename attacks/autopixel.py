"""AutoPixel: an ensemble with nothing to tune, for a few pixels of each image in any colour.

The stages, each on the images that none before it fooled:

    0    GreedyFool's greedy stage, then 100 exchanges of pixels at the ends of their range
    1    pixels in corner colours, greedily one after the other, about 4,000 queries in all: scores alone
    2–4  as stage 0, towards the likeliest, second and third likeliest wrong class
    5    Sparse-RS with 3,000 queries: scores alone

For one pixel: 20 exchanges, then every pixel in every corner colour, up to 8,192 queries. On larger images only
the most promising ones are tried.

σ-zero is not a stage: it looks for the fewest pixels, not for the best use of a fixed number. At 3 pixels it fooled
none of the images that stage 0 left.

Ours; the idea of a fixed ensemble of attacks that fail differently is that of Croce and Hein (arXiv 2003.01690). The
record says which stage fooled an image first ("stage"). A published number belongs to its `version`; what a
version does never changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._cascade import Cascade, Stage
from .autopatch import check_version
from .corner_pixel import CornerPixel
from .greedyfool import GreedyFool
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
        k = self.pixels
        if k == 1:
            return Stage(_exchanged(1, 20)), Stage(CornerPixel(most=8192))
        return (
            Stage(_exchanged(k, 100)),
            Stage(CornerPixel(pixels=k, most=max(64, 4096 // k))),
            *(Stage(_exchanged(k, 100), rank) for rank in (1, 2, 3)),
            Stage(SparseRS(pixels=k, queries=3000)),
        )


def _exchanged(pixels: int, exchanges: int) -> GreedyFool:
    return GreedyFool(pixels=pixels, steps=pixels, reductions=0, exchanges=exchanges)
