"""Digital watermarking with the true mask: an upper bound for every defense that finds a patch and fills it in.

The non-blind variant of Hayes (CVPR workshops 2018), in which the defender is told where the patch is. Nobody is told
that, so it is never ranked: it says how much is left to gain by finding patches better.

    changed = pixels that differ from the original by more than half a level of 255
    x' = x with the changed pixels inpainted (Bertalmio et al. 2001, radius 3); the model then looks at x'

The runner shows it each attacked image with its original behind it, in the same tensor: 2c channels for images of c.
Images alone (an odd number of channels) are taken as unattacked. For attacks that change every pixel it makes no sense:
the whole image would be filled. An attacker cannot do better than attack the bare model.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import Artifact, Classifier, Defense, Images, Logits, NotApplicableError, Streams

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
        """Raises NotApplicableError for images of an even number of channels: those stand for pairs."""
        if image_shape[0] % 2 == 0:
            raise NotApplicableError(f"dw-oracle takes images of 1 or 3 channels; these have {image_shape[0]}.")

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind the inpainting."""
        return _Told(model)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The bare model: what the attacker changes, the defended one never sees."""
        return {"bare": model}


class _Told(Classifier):
    """A model that sees attacked images with what was changed filled in."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.num_classes, self.rejects, self.random = model.num_classes, model.rejects, model.random
        self.passes = model.passes

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of the filled images; `images` has c channels, or c of the attacked image and c of its original."""
        refuse_nan(images, "dw-oracle")
        if images.shape[1] % 2 == 0:
            images, originals = images.chunk(2, 1)
            images = inpaint(images, ((images - originals).abs() > HALF_A_LEVEL).any(1, keepdim=True))
        return self.model(images, rng)  # type: ignore[no-any-return]  # nn.Module
