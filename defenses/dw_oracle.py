"""Digital watermarking with the true mask: an upper bound for every defense that finds and inpaints a patch.

The non-blind variant of Hayes (CVPR workshops 2018), in which the defender is told where the patch is. No real defender
is, so it is never ranked: it shows how much better localisation could gain.

    changed = pixels that differ from the original by more than half a level of 255
    x' = x with the changed pixels inpainted (Bertalmio et al. 2001, radius 3), which the model then classifies

The runner passes each attacked image with its original behind it in the same tensor: 2c channels for images of c.
Images alone (an odd number of channels) count as unattacked. For attacks that change every pixel this is pointless,
since the whole image would be filled. An attacker cannot do better than attack the bare model.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from bench.contracts import Artifact, Classifier, Defense, Images, NotApplicableError, Streams, Transformed

from ._inpaint import inpaint
from ._pixels import refuse_nan

HALF_A_LEVEL = 0.5 / 255 + 1e-6


@dataclass(frozen=True)
class DWOracle(Defense):
    """Digital watermarking told where the patch is: an upper bound, never ranked."""

    title = "DW (told the mask)"
    paper = "Hayes 2018 (after summaries of it)"
    note = "an upper bound: it is told which pixels were attacked"
    kind = "transform"
    ranked = False
    sees_originals = True

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises NotApplicableError for images with an even number of channels, which would mean pairs."""
        if image_shape[0] % 2 == 0:
            raise NotApplicableError(f"dw-oracle is for images of 1 or 3 channels; these have {image_shape[0]}.")

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind the inpainting."""
        return Transformed(model, _without_changes)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The bare model, since the defended one never sees what the attacker changes."""
        return {"bare": model}


def _without_changes(images: Float[Tensor, "n channels h w"], rng: Streams) -> Images:
    """The images with changes inpainted; they have c channels, or c of the attacked image and c of its original."""
    refuse_nan(images, "dw-oracle")
    if images.shape[1] % 2:
        return images
    images, originals = images.chunk(2, 1)
    return inpaint(images, ((images - originals).abs() > HALF_A_LEVEL).any(1, keepdim=True))
