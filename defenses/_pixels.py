"""What several transforms share: refusing NaN, borders, and a thread for each image."""

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

from bench.contracts import Images


def refuse_nan(images: Images, what: str) -> None:
    """Raises ValueError where a value is NaN or infinite, which libraries of 8-bit codecs and sorts would hide."""
    # Not torch's sum: its threads spin on for a while, and so take the time of those of `each`.
    if images.device.type == "cpu" and np.isfinite(images.detach().numpy().sum()):
        return
    if not torch.isfinite(images.sum()):
        rows = (~torch.isfinite(images)).flatten(1).any(1).nonzero()[:, 0].tolist()
        raise ValueError(f"{what} expects values in [0, 1], but images {rows[:5]} of the batch hold NaN or infinity.")


def each(work: Callable[..., NDArray[Any] | list[NDArray[Any]]], images: Tensor, *others: Sequence[Any]) -> Tensor:
    """`work(image, *other)` for every image (as a NumPy array) of a CPU tensor, on as many threads as torch uses.

    It pays where `work` is a C function that lets other threads run, as those of OpenCV do. `work` gives an array of
    its image's shape and type, or a list of its planes, and never calls torch: its threads would compete with these.
    """
    done = torch.empty_like(images)
    jobs = list(zip(done.numpy(), images.numpy(), *others, strict=True))
    threads = max(1, min(torch.get_num_threads(), len(jobs)))
    handed_out = [_helpers().submit(_share, work, jobs[first::threads]) for first in range(1, threads)]
    _share(work, jobs[::threads])  # the calling thread does its part: waiting for others, it would wake up late
    for part in handed_out:
        part.result()
    return done


def _share(work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> None:
    for place, *job in jobs:
        place[...] = work(*job)


@cache
def _helpers() -> ThreadPoolExecutor:
    """Threads that stay: to start them costs as much as to filter several images."""
    return ThreadPoolExecutor(os.cpu_count(), "each")


def luma(images: Images) -> Float[Tensor, "n h w"]:
    """ITU-R 601 luma of RGB images, the mean of the channels of any others."""
    if images.shape[1] != 3:
        return images.mean(1)
    red, green, blue = images.unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def pad_mirrored(
    images: Shaped[Tensor, "*n h w"], before: int, after: int, edge: bool = True
) -> Shaped[Tensor, "*n h2 w2"]:
    """Pads height and width by mirroring, with the edge repeated (SciPy's `reflect`) or not, however small they are."""
    rows, columns = (_mirrored(length, before, after, edge, images.device) for length in images.shape[-2:])
    return images[..., rows, :][..., columns]


def _mirrored(length: int, before: int, after: int, edge: bool, device: torch.device) -> Tensor:
    period = 2 * length if edge else max(1, 2 * length - 2)
    places = torch.arange(-before, length + after, device=device) % period
    return torch.minimum(places, period - places - (1 if edge else 0))


def neighbours(images: Shaped[Tensor, "*n h w"], size: int, edge: bool = True) -> list[Shaped[Tensor, "*n h w"]]:
    """For each place of a size×size window the image shifted so; even windows reach further left and up.

    Beyond the border the image is mirrored, with the edge repeated or not.
    """
    height, width = images.shape[-2:]
    padded = pad_mirrored(images, size // 2, size - 1 - size // 2, edge)
    return [padded[..., i : i + height, j : j + width] for i in range(size) for j in range(size)]
