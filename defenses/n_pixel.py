"""N-pixel reconstruction: a pixel that leaves the range of its eight neighbours is replaced by them.

Liu et al., "Defense against N-pixel attacks based on image reconstruction" (SBC 2020). Only the abstract could be had:
changed pixels differ obviously from their neighbours, and the image is rebuilt in three stages. What is done here:

    1. a pixel is suspect if a channel lies more than `threshold` above the largest or below the smallest neighbour
    2. all channels of a suspect become the median of the neighbours, the mean of the two in the middle
    3. again, until nothing is suspect or `passes` are over, so that changed pixels side by side are found too

The border is mirrored without its edge, so a pixel in a corner is no neighbour of itself. Which pixels are suspect
passes no gradient; what they become does. An attacker also tries the gradient that passes the defense by (`bpda`): a
pixel that was replaced may come to be one that is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.contracts import Images, Streams, Transform

from ._pixels import neighbours, refuse_nan
from ._ranges import within


@dataclass(frozen=True)
class NPixel(Transform):
    """N-pixel reconstruction: replaces pixels that stick out of their neighbourhood.

    Attributes:
        threshold: how far a pixel must stick out, in [0, 1]; 0.15 touches 0.03 % of the pixels of clean photographs.
        passes: how often it looks at the most, 1 to 20.
    """

    threshold: float = 0.15
    passes: int = 3

    title = "N-pixel"
    paper = "Liu et al. 2020 (after the abstract)"
    views = ("exact", "bpda")
    presets = {}

    def __post_init__(self) -> None:
        within("a threshold", self.threshold, 0, 1, "0.15 is the default")
        within("a number of passes", self.passes, 1, 20, "the paper has three stages")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The rebuilt images; raises ValueError for NaN."""
        refuse_nan(images, "n-pixel")
        images = images.clone()
        for _ in range(self.passes):
            around = _around(images)
            suspects = self._suspects(images.detach(), [one.detach() for one in around])
            if not suspects.any():
                break
            values = torch.stack([one.movedim(1, -1)[suspects] for one in around]).sort(dim=0).values
            rebuilt = torch.zeros_like(images).movedim(1, -1).index_put((suspects,), (values[3] + values[4]) / 2)
            images = torch.where(suspects[:, None], rebuilt.movedim(-1, 1), images)
        return images

    def _suspects(self, images: Images, around: list[Tensor]) -> Tensor:
        low, high = around[0], around[0]
        for one in around[1:]:
            low, high = torch.minimum(low, one), torch.maximum(high, one)
        return ((images > high + self.threshold) | (images < low - self.threshold)).any(1)


def _around(images: Images) -> list[Tensor]:
    """The eight neighbours of each pixel."""
    window = neighbours(images, 3, edge=False)
    return window[:4] + window[5:]
