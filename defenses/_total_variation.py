"""Total variation minimisation with a quadratic data term, for a whole batch, with or without missing pixels.

    u = argmin Σ_pixels |∇u| + fidelity/2 · Σ_pixels kept · u² − fidelity · Σ_pixels data · u

With data = kept · f, this is the model of Rudin, Osher and Fatemi, which scikit-image's `denoise_tv_chambolle`
minimises with weight = 1 / fidelity; ∇ are forward differences, and channels are independent. The solver is the
primal-dual method of Chambolle and Pock (2011, J. Math. Imaging Vision 40), accelerated (their algorithm 2) if no pixel
is missing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Images
from bench.memory import in_pieces

AT_ONCE = 2**18
"""Number of values to work on at once: what fits into a processor's cache."""


def minimise(data: Images, kept: Images | None, fidelity: float, steps: int) -> Images:
    """The minimiser after `steps` steps: within about one level of 255 after 30 (100 with missing pixels).

    Args:
        data: the images, with 0 for missing pixels; shape (n, c, h, w).
        kept: 1 for known and 0 for missing pixels, or None if none is missing.
        fidelity: weight of the data, above 0; a larger one smooths less.
        steps: number of updates of every pixel.
    """
    if not data.numel():
        return data.clone()
    piece = max(1, AT_ONCE // data[0].numel())
    return in_pieces(
        lambda part: _solve(data[part], None if kept is None else kept[part], fidelity, steps), len(data), piece
    )


def _solve(data: Images, kept: Images | None, fidelity: float, steps: int) -> Images:
    image = data.clone() if kept is None else data + (1 - kept) * _surroundings(data, kept)
    ahead = image.clone()
    across, down, room = (torch.zeros_like(data) for _ in range(3))
    pull, primal = data * fidelity, 0.25
    for _ in range(steps):
        dual = 1 / (8 * primal)
        _climb(across, ahead, room, -1, dual)
        _climb(down, ahead, room, -2, dual)
        torch.mul(across, across, out=room)
        room.addcmul_(down, down).sqrt_().clamp_min_(1)
        across.div_(room)
        down.div_(room)
        _divergence(across, down, room)
        room.add_(pull)
        torch.add(image, room, alpha=primal, out=room)
        room.div_(1 + primal * fidelity * (1 if kept is None else kept))
        momentum = 1.0 if kept is not None else 1 / math.sqrt(1 + 1.4 * fidelity * primal)
        primal *= momentum
        torch.lerp(image, room, 1 + momentum, out=ahead)
        image, room = room, image
    return image


def _surroundings(data: Images, kept: Images) -> Images:
    """The mean of the known pixels within 5×5; mid-grey if none is known."""
    known = F.avg_pool2d(kept, 5, 1, 2)
    return torch.where(known > 0, F.avg_pool2d(data, 5, 1, 2) / known.clamp_min(1e-6), 0.5)


def _climb(field: Tensor, image: Tensor, room: Tensor, axis: int, step: float) -> None:
    """Adds `step` times the differences of the image along an axis to the field; the last difference is 0."""
    length = image.shape[axis] - 1
    difference = room.narrow(axis, 0, length)
    torch.sub(image.narrow(axis, 1, length), image.narrow(axis, 0, length), out=difference)
    field.narrow(axis, 0, length).add_(difference, alpha=step)


def _divergence(across: Tensor, down: Tensor, room: Tensor) -> None:
    """Writes minus the adjoint of the differences into `room`."""
    torch.add(across, down, out=room)
    for field, axis in ((across, -1), (down, -2)):
        length = room.shape[axis] - 1
        room.narrow(axis, 1, length).sub_(field.narrow(axis, 0, length))
