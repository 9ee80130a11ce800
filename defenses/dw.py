"""Digital watermarking: finds the region that the answer depends on, and inpaints it.

Hayes, "On visible adversarial perturbations & digital watermarking" (CVPR workshops 2018). Neither its text nor its
code was available; it is known that the saliency of attacked images is dense and clustered, that its mask is cleaned by
morphology, and that the hole is inpainted. Our version, blind as in Naseer et al. (arXiv 1807.01216):

    s = saliency of the predicted class, the largest over the channels
    hot = pixels above the `quantile` of s; eroded 3×3 (isolated pixels vanish), dilated twice, holes filled,
          pieces smaller than `smallest` of the image dropped, dilated 3×3
    x' = x with the hot region inpainted (Bertalmio et al. 2001, radius 3), which the model then classifies

With q as quantile, at most 1 − q of the pixels are hot, so a patch that is larger than that is never covered. So by
default the quantile follows the largest patch that the defense is built against: q = 0.98 − `area`, chosen on training
images (ResNet-20 on CIFAR-10 and LaVAN, area 5 %: of the fooled images, q = 0.97 restores 43 %, 0.93 restores 77 %, at
92 % clean accuracy either way; beyond, clean accuracy falls faster than the other rises).

The mask depends on the model, so this is not a plain transform of images. The attacker gets two gradients, both with
the mask held fixed: `defended` has none inside the mask, where changes have no effect; `bpda` is the identity there, so
that a patch that is found keeps improving until it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes
from torch import Tensor

from bench.contracts import Artifact, Classifier, Defense, Images, Logits, Streams, Wrapped

from ._inpaint import inpaint
from ._pixels import for_each, refuse_nan, straight_through
from ._ranges import within
from ._saliency import SaliencyMethod, saliency

MARGIN = 0.98
"""The default quantile, were the patch of no size."""


@dataclass(frozen=True)
class DW(Defense):
    """Digital watermarking, blind: inpaints the region that the answer depends on.

    Attributes:
        saliency: `guided` backpropagation, the plain `gradient`, or `smoothgrad`.
        area: the largest patch to defend against, as a share of the image, in (0, 0.48].
        quantile: quantile of the saliency above which pixels are hot, in [0.5, 1); None for 0.98 − area.
        smallest: share of the image below which a hot piece is dropped, in [0, 1].
    """

    saliency: SaliencyMethod = "guided"
    area: float = 0.05
    quantile: float | None = None
    smallest: float = 0.005

    title = "DW"
    paper = "Hayes 2018 (after summaries of it)"
    note = "built from summaries; the paper's text and code were not available"
    kind = "transform"

    def __post_init__(self) -> None:
        within("an area as a share of the image", self.area, 1e-6, 0.48, "0.05 is the default")
        within("a quantile", self.quantile, 0.5, 1 - 1e-9, "omit it for 0.98 − area")
        within("a smallest piece as a share of the image", self.smallest, 0, 1, "0.005 is the default")

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind its own inpainting."""
        return _Inpainted(model, self)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The defended model, and one whose inpainting has the gradient of the identity."""
        return {"defended": _Inpainted(model, self), "bpda": _Inpainted(model, self, identity=True)}

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The region that is inpainted."""
        return self.masks(saliency(model, images, rng, self.saliency)[0])[:, 0]

    def masks(self, salient: Float[Tensor, "n h w"]) -> Bool[Tensor, "n 1 h w"]:
        """The regions to fill, from the saliency."""
        flat = salient.flatten(1)
        quantile = MARGIN - self.area if self.quantile is None else self.quantile
        rank = min(flat.shape[1], int(quantile * flat.shape[1]) + 1)
        hot = (salient >= flat.kthvalue(rank, dim=1).values[:, None, None]) & (salient > 0)
        return for_each(self._region, hot.to(torch.uint8).cpu()).to(salient.device).bool()[:, None]

    def _region(self, hot: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mask of one image, cleaned by morphology."""
        reach, small = max(3, min(hot.shape) // 32), np.ones((3, 3), np.uint8)
        dense = cv2.erode(hot, small, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        if not np.any(dense):
            return np.zeros_like(hot)
        grown = cv2.dilate(dense, np.ones((reach, reach), np.uint8), iterations=2)
        return np.asarray(
            cv2.dilate(drop_small(binary_fill_holes(grown).astype(np.uint8), self.smallest), small), np.uint8
        )


def drop_small(mask: NDArray[np.uint8], smallest: float) -> NDArray[np.uint8]:
    """The mask without connected pieces smaller than this share of the image."""
    _, pieces, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    large = statistics[:, cv2.CC_STAT_AREA] >= smallest * mask.size
    large[0] = False  # the background
    return np.asarray(large[pieces], np.uint8)


class _Inpainted(Wrapped):
    """A model that classifies an image again without the region that its first answer depends on."""

    def __init__(self, model: Classifier, defense: DW, identity: bool = False) -> None:
        super().__init__(model, passes=2, random=defense.saliency == "smoothgrad")
        self.defense, self.identity = defense, identity

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of the inpainted images."""
        refuse_nan(images, "dw")
        if not len(images):
            return self.model(images, rng)
        salient, logits = saliency(self.model, images.detach(), rng, self.defense.saliency)
        masks = self.defense.masks(salient)
        if torch.is_grad_enabled() and images.requires_grad:
            filled = straight_through(images, lambda x: inpaint(x, masks)) if self.identity else inpaint(images, masks)
            return self.model(filled, rng)
        rows = masks.flatten(1).any(1).nonzero()[:, 0]
        if len(rows):
            logits = logits.index_copy(0, rows, self.model(inpaint(images[rows], masks[rows]), rng[rows]).detach())
        return logits
