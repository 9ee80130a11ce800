"""Digital watermarking: finds what the answer hangs on, cuts it out and fills it in.

Hayes, "On visible adversarial perturbations & digital watermarking" (CVPR workshops 2018). Neither its text nor its
code could be had; known is that the attacked image's saliency is dense and clustered, that its mask is cleaned by
morphology, and that the hole is inpainted. What is done here, blind as in Naseer et al. (arXiv 1807.01216):

    s = saliency of the predicted class, the largest over the channels
    hot = pixels above the `quantile` of s; eroded 3×3 (isolated pixels vanish), dilated twice, holes filled,
          pieces under `area` of the image dropped, dilated 3×3
    x' = x with the hot region inpainted (Bertalmio et al. 2001, radius 3); the model then looks at x'

The mask follows the model, so this is no plain transform of images. An attacker gets two gradients through it, both
with the mask held fixed: `defended` with none inside the mask, where nothing the attacker does has an effect, and
`bpda` with the inpainting passed by, which keeps improving a patch that is found until it is not.
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

from bench.contracts import BPDA, Artifact, Classifier, Defense, Images, Logits, Streams

from ._inpaint import inpaint
from ._pixels import each, refuse_nan
from ._ranges import within
from ._saliency import Way, saliency


@dataclass(frozen=True)
class DW(Defense):
    """Digital watermarking, blind: inpaints the region that the answer hangs on.

    Attributes:
        saliency: `guided` backpropagation, the plain `gradient`, or `smoothgrad`.
        quantile: share of the pixels that are less salient than those that count as hot, in [0.5, 1).
        area: share of the image under which a hot piece is dropped, in [0, 1].
    """

    saliency: Way = "guided"
    quantile: float = 0.97
    area: float = 0.005

    title = "DW"
    paper = "Hayes 2018 (after summaries of it)"
    note = "built after summaries of the paper, whose text and code could not be had"
    kind = "transform"

    def __post_init__(self) -> None:
        within("a quantile", self.quantile, 0.5, 1 - 1e-9, "0.97 is the default")
        within("an area", self.area, 0, 1, "0.005 is the default")

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind its own inpainting."""
        return _Inpainted(model, self)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The defended model, and one whose inpainting is the identity backwards."""
        return {"defended": _Inpainted(model, self), "bpda": _Inpainted(model, self, identity=True)}

    def masks(self, salient: Float[Tensor, "n h w"]) -> Bool[Tensor, "n 1 h w"]:
        """The regions to fill, from saliency."""
        flat = salient.flatten(1)
        place = min(flat.shape[1], int(self.quantile * flat.shape[1]) + 1)
        hot = (salient >= flat.kthvalue(place, dim=1).values[:, None, None]) & (salient > 0)
        return each(self._region, hot.to(torch.uint8).cpu()).to(salient.device).bool()[:, None]

    def _region(self, hot: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One image's mask, cleaned by morphology."""
        reach, small = max(3, min(hot.shape) // 32), np.ones((3, 3), np.uint8)
        dense = cv2.erode(hot, small, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        if not np.any(dense):
            return np.zeros_like(hot)
        grown = cv2.dilate(dense, np.ones((reach, reach), np.uint8), iterations=2)
        return np.asarray(cv2.dilate(drop_small(binary_fill_holes(grown).astype(np.uint8), self.area), small), np.uint8)


def drop_small(mask: NDArray[np.uint8], area: float) -> NDArray[np.uint8]:
    """The mask without connected pieces that are smaller than this share of the image."""
    _, pieces, facts, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    large = facts[:, cv2.CC_STAT_AREA] >= area * mask.size
    large[0] = False  # the background
    return np.asarray(large[pieces], np.uint8)


class _Inpainted(Classifier):
    """A model that looks twice: where does it look, and then again without that."""

    def __init__(self, model: Classifier, defense: DW, identity: bool = False) -> None:
        super().__init__()
        self.model, self.defense, self.identity = model, defense, identity
        self.num_classes, self.rejects, self.random = model.num_classes, model.rejects, model.random
        self.random = model.random or defense.saliency == "smoothgrad"
        self.passes = 2 * model.passes

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of the inpainted images."""
        refuse_nan(images, "dw")
        if not len(images):
            return self.model(images, rng)  # type: ignore[no-any-return]  # nn.Module
        salient, logits = saliency(self.model, images.detach(), rng, self.defense.saliency)
        masks = self.defense.masks(salient)
        if torch.is_grad_enabled() and images.requires_grad:
            return self.model(self._filled(images, masks), rng)  # type: ignore[no-any-return]  # nn.Module
        rows = masks.flatten(1).any(1).nonzero()[:, 0]
        if len(rows):
            logits = logits.index_copy(0, rows, self.model(inpaint(images[rows], masks[rows]), rng[rows]).detach())
        return logits

    def _filled(self, images: Images, masks: Tensor) -> Images:
        if not self.identity:
            return inpaint(images, masks)
        filled: Images = BPDA.apply(images, lambda x: inpaint(x, masks), lambda x, gradient: gradient)
        return filled
