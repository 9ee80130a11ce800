"""Whether answers depend on anything but the image and its random stream: on chance, on neighbours, or on memory."""

from __future__ import annotations

import torch
from torch import Tensor

from bench.contracts import Classifier, Images, Logits, Streams, answers
from bench.records.warnings import DEPENDS_ON_BATCH, DEPENDS_ON_HISTORY, UNREPEATABLE

FEW = 5
"""Images that are asked again in every cell."""

_TOLERANCE = 1e-3
"""Of the largest logit. Rounding differs by 1e-6 between batches of different sizes."""


def hidden_input(used: Classifier, unused: Classifier, images: Images, rng: Streams, logits: Logits) -> str | None:
    """What else the answers to some images depend on; None if nothing shows.

    A difference counts if most of the images show it: where an image is close to a threshold, rounding may turn it.

    Args:
        used: a model that has been shown these images, their originals and whatever attackers asked.
        unused: a copy of it that has been shown nothing before `images` and others like them.
        images, rng: a few images and their streams.
        logits: the answers of `unused` to them, in a larger batch, in its first call.

    Returns:
        One of the keys of `HIDDEN_INPUTS`.
    """
    if not _differ(_alone(used, images, rng), logits):
        return None
    alone = _alone(unused, images, rng)
    if _differ(alone, _alone(unused, images, rng)):
        return UNREPEATABLE
    return DEPENDS_ON_BATCH if _differ(alone, logits) else DEPENDS_ON_HISTORY


def _alone(classifier: Classifier, images: Images, rng: Streams) -> Tensor:
    """The logits of each image in a batch of its own."""
    return torch.cat(
        [answers(classifier, images[row : row + 1].clone(), rng[row : row + 1]) for row in range(len(images))]
    )


def _differ(logits: Logits, others: Logits) -> bool:
    """Whether the logits of most images differ by more than rounding."""
    scale = others.nan_to_num().abs().amax(1, keepdim=True).clamp(min=1)
    same = torch.isclose(logits / scale, others / scale, rtol=0, atol=_TOLERANCE, equal_nan=True).all(1)
    return bool(2 * same.sum() < len(same))
