"""Work in pieces that fit into memory; a piece that does not fit is halved, and the results stay the same."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

PIXELS_AT_ONCE = 2**16
"""Pixels computed at once: 64 images of 32². On a CPU, 512 such images at once take nearly twice as long for each."""

ROWS_AT_ONCE = 8
"""Images computed at once, however large they are."""


def piece_of(image_shape: tuple[int, ...]) -> int:
    """The number of images of this shape (…, h, w) to compute at once."""
    return max(ROWS_AT_ONCE, PIXELS_AT_ONCE // max(1, image_shape[-2] * image_shape[-1]))


def out_of_memory(error: BaseException) -> bool:
    """Whether this error means that memory ran out, on a CPU or a GPU."""
    messages = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error).lower() for message in messages)
    )


def in_pieces(work: Callable[[slice], Tensor], rows: int, piece: int) -> Tensor:
    """`work` for all rows, at most `piece` of them at a time, concatenated; smaller pieces if memory runs out."""
    while True:
        try:
            starts = range(0, max(rows, 1), piece)
            parts = [work(slice(start, min(start + piece, rows))) for start in starts]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except (MemoryError, RuntimeError) as error:
            if piece == 1 or not out_of_memory(error):
                raise
        piece = max(1, min(piece, rows) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
