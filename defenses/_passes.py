"""Many forward passes per image, in pieces, with or without gradients; and gradients of logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bench.contracts import Classifier, Images, Labels, Logits, Streams
from bench.memory import in_pieces, piece_of


def in_passes(work: Callable[[slice], Tensor], rows: int, image: tuple[int, ...]) -> Tensor:
    """`work` over all rows, concatenated, with no more rows at once than fit into memory for such an image (c, h, w).

    Under autograd, each piece is recomputed in the backward pass, since the activations for dozens of variants of
    each image would not fit into memory.
    """
    piece = piece_of((rows, *image))
    if not torch.is_grad_enabled() or rows <= piece:
        return in_pieces(work, rows, piece)

    def recomputed(part: slice) -> Tensor:
        return checkpoint(work, part, use_reentrant=False, preserve_rng_state=False)

    return in_pieces(recomputed, rows, piece)


def logit_gradient(
    model: Classifier, images: Images, rng: Streams, classes: Labels | None = None
) -> tuple[Images, Logits]:
    """The gradient of one logit per image (by default the largest) with respect to the image, and all logits.

    Neither has a graph.
    """
    with torch.enable_grad():
        variable = images.detach().requires_grad_()
        logits = model(variable, rng)
        chosen = logits.argmax(1) if classes is None else classes
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), variable)
    return gradient, logits.detach()
