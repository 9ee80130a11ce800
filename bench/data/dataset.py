"""Labelled images, read when they are needed, and the choice of some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from bench.errors import InputError

Bytes = UInt8[Tensor, "n c h w"]
Indices = Int[Tensor, "n"]


class Split:
    """Labelled images: the labels are known, pixels are read on demand."""

    def __init__(
        self,
        labels: Int[Tensor, "count"] | Callable[[], Int[Tensor, "count"]],
        read: Callable[[Indices], Bytes | Float[Tensor, "n c h w"]],
        fingerprint: Callable[[], str] | None = None,
    ) -> None:
        """A split that reads through functions.

        Args:
            labels: shape (count,), int64; or a function that returns them, called when they are first needed.
            read: indices of shape (n,) -> images of shape (n, c, h, w), in 8 bits or float32 in [0, 1]; never called
                without an index.
            fingerprint: a fast way to the hash of all images and labels; by default all images are read.
        """
        self._labels, self._read, self._fingerprint = labels, read, fingerprint

    @cached_property
    def labels(self) -> Int[Tensor, "count"]:
        """All labels, shape (count,), int64."""
        return self._labels if isinstance(self._labels, Tensor) else self._labels()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def fingerprint(self) -> str:
        """Changes with any image, any label or their order: their number and 12 hex digits."""
        if not len(self):
            return "0 none"
        return f"{len(self)} {(self._fingerprint or self._hash_pixels)()}"

    def _hash_pixels(self) -> str:
        digest = hashlib.sha256(self.labels.numpy().astype("<i8").tobytes())
        for indices in torch.split(torch.arange(len(self)), 4096):
            images = self._read(indices)
            digest.update(str(tuple(images.shape)).encode() + images.contiguous().numpy().tobytes())
        return digest.hexdigest()[:12]

    def load(self, indices: Indices) -> Float[Tensor, "n c h w"]:
        """The images with these indices, float32 NCHW in [0, 1], on the CPU.

        Raises:
            InputError: there is no index, one is out of range, or an image cannot be read.
        """
        if not len(indices):
            raise InputError(f"Expected at least one image to load, but got none; the split has {len(self)}.")
        if not 0 <= int(indices.min()) <= int(indices.max()) < len(self):
            raise InputError(f"Expected image indices from 0 to {len(self) - 1}, but got {indices.tolist()}.")
        images = self._read(indices.cpu())
        return images if images.is_floating_point() else images.to(torch.float32) / 255


@dataclass(frozen=True)
class Dataset:
    """A named set of labelled images.

    Attributes:
        name: the text that `load_dataset` made it from, in one spelling and without paths.
        classes: what the labels stand for.
        train: images to learn from; may be empty.
        test: images to evaluate on; none of them is in `train`.
        warnings: what may be wrong with them.
        folders: the folders that it reads from, by their names in `name`.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    test: Split
    warnings: tuple[str, ...] = ()
    folders: Mapping[str, Path] = field(default_factory=dict)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width, taken from the first image for evaluation."""
        channels, height, width = self.test.load(torch.tensor([0])).shape[1:]
        return channels, height, width


def choose(split: Split, count: int | None, seed: int = 0) -> Indices:
    """Sorted indices of `count` images, evenly over the classes; a seed always gives the same choice.

    Their numbers of images differ by at most one, unless a class has too few. A smaller choice is part of every larger
    one with the same seed.

    Args:
        split: what to choose from.
        count: how many images; None for all of them.
        seed: which choice, from 0.

    Raises:
        InputError: there are fewer images, or less than one is asked for.
    """
    if count is None:
        return torch.arange(len(split))
    if not 1 <= count <= len(split):
        raise InputError(f"Expected a number of images from 1 to {len(split)}, but got {count}.")
    labels = split.labels.numpy()
    chooser = generator(seed)
    shuffled = chooser.permutation(len(labels))
    place = places_in_class(labels[shuffled])
    turn = chooser.permutation(int(labels.max()) + 1)[labels[shuffled]]
    chosen = shuffled[np.lexsort((turn, place))[:count]]
    return torch.from_numpy(np.sort(chosen))


def places_in_class(labels: np.ndarray) -> np.ndarray:
    """For each label of shape (n,), how many equal labels come before it."""
    order = np.argsort(labels, kind="stable")
    sorted_labels = labels[order]
    places = np.empty_like(order)
    places[order] = np.arange(len(labels)) - np.searchsorted(sorted_labels, sorted_labels)
    return places


def generator(*seed: int) -> np.random.Generator:
    """Random numbers for choices of images; raises InputError for a negative seed."""
    if min(seed) < 0:
        raise InputError(f"Expected a seed from 0, but got {min(seed)}.")
    return np.random.default_rng(seed)


def fingerprint(images: Float[Tensor, "n c h w"], labels: Int[Tensor, "n"]) -> str:
    """Changes with any pixel (in 8 bits), any label and their order; 12 hex digits of SHA-256."""
    pixels = (images.detach().cpu() * 255).round().to(torch.uint8).contiguous()
    digest = hashlib.sha256(str(tuple(pixels.shape)).encode())
    digest.update(pixels.numpy().tobytes())
    digest.update(labels.detach().cpu().to(torch.int64).numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:12]
