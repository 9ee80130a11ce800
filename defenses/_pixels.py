"""Shared by transforms: a check for NaN, borders, straight-through gradients, and a thread for each image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from bench.contracts import BPDA, Images


def straight_through(images: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`function(images)`, with the gradient of the identity (BPDA, arXiv 1802.00420)."""
    return BPDA.apply(images, function, lambda values, gradient: gradient)  # type: ignore[no-any-return]  # torch has no types for apply


def bounded(images: Images) -> Images:
    """The values clamped to [0, 1], with a gradient everywhere.

    torch's clamp has none at 0 and 1, where half of a digit's pixels are: an attacker would not change them.
    """
    return straight_through(images, lambda values: values.clamp(0, 1))


def refuse_nan(images: Images, what: str) -> None:
    """Raises ValueError for NaN or infinite values, which 8-bit codecs and sorting would hide."""
    # Not torch's sum: its threads keep spinning for a while and so slow down those of `for_each`.
    if images.device.type == "cpu" and np.isfinite(images.detach().numpy().sum()):
        return
    if not torch.isfinite(images.sum()):
        rows = (~torch.isfinite(images)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"{what} expects values in [0, 1], but images {rows[:5]} of the batch hold NaN or infinity.")


def for_each(work: Callable[[NDArray[Any]], NDArray[Any] | list[NDArray[Any]]], images: Tensor) -> Tensor:
    """`work(image)` for every image (as a NumPy array) of a CPU tensor, on as many threads as torch uses.

    This pays if `work` is a C function that releases the GIL, such as those of OpenCV. `work` returns an array of the
    image's shape and type, or a list of its planes, and must not call torch, whose threads would compete with these.
    """
    results = torch.empty_like(images)
    jobs = list(zip(results.numpy(), images.numpy(), strict=True))
    threads = max(1, min(torch.get_num_threads(), len(jobs)))
    submitted = [_pool().submit(_work_on, work, jobs[first::threads]) for first in range(1, threads)]
    _work_on(work, jobs[::threads])  # the calling thread takes a share too: if it waited, it would wake up late
    for share in submitted:
        share.result()
    return results


def _work_on(work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> None:
    for result, image in jobs:
        result[...] = work(image)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that stay alive: starting them takes as long as filtering several images."""
    return ThreadPoolExecutor(os.cpu_count(), "for_each")


def luma(images: Images) -> Float[Tensor, "n h w"]:
    """ITU-R 601 luma of RGB images, the mean over the channels of others."""
    if images.shape[1] != 3:
        return images.mean(1)
    red, green, blue = images.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def pad_mirrored(
    images: Shaped[Tensor, "*n h w"], before: int, after: int, edge: bool = True
) -> Shaped[Tensor, "*n h2 w2"]:
    """Pads height and width of any size by mirroring, with the edge repeated (SciPy's `reflect`) or not."""
    rows, columns = (_mirrored(length, before, after, edge, images.device) for length in images.shape[-2:])
    return images[..., rows, :][..., columns]


def _mirrored(length: int, before: int, after: int, edge: bool, device: torch.device) -> Tensor:
    period = 2 * length if edge else max(1, 2 * length - 2)
    places = torch.arange(-before, length + after, device=device) % period
    return torch.minimum(places, period - places - (1 if edge else 0))


def neighbours(images: Shaped[Tensor, "*n h w"], size: int, edge: bool = True) -> list[Shaped[Tensor, "*n h w"]]:
    """The image shifted to each place of a size×size window; even windows extend further to the left and up.

    The border is mirrored, with the edge repeated or not.
    """
    height, width = images.shape[-2:]
    padded = pad_mirrored(images, size // 2, size - 1 - size // 2, edge)
    return [padded[..., i : i + height, j : j + width] for i in range(size) for j in range(size)]
