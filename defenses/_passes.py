"""Many forward passes for one image, in pieces, with and without gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bench.contracts import Classifier, Images, Labels, Streams
from bench.memory import in_pieces, piece_of


def in_passes(work: Callable[[slice], Tensor], rows: int, image: tuple[int, ...]) -> Tensor:
    """`work` over all rows, concatenated; no more rows at once than memory bears for such an image (c, h, w).

    Under autograd what a piece computes is not kept but computed again in the backward pass: a variant of each
    image for each of dozens of masks would not fit otherwise.
    """
    piece = piece_of((rows, *image))
    if not torch.is_grad_enabled() or rows <= piece:
        return in_pieces(work, rows, piece)

    def again(part: slice) -> Tensor:
        return checkpoint(work, part, use_reentrant=False, preserve_rng_state=False)

    return in_pieces(again, rows, piece)


def slopes(model: Classifier, images: Images, classes: Labels, rng: Streams) -> Images:
    """The gradient of one logit of each image, that of its class here, with respect to the image; no graph is kept."""
    with torch.enable_grad():
        watched = images.detach().requires_grad_()
        chosen = model(watched, rng).gather(1, classes[:, None])
        (gradient,) = torch.autograd.grad(chosen.sum(), watched)
    return gradient
