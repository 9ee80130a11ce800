"""Data sets in folders of image files, a folder a class."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench.data.dataset import Bytes, Dataset, Indices, Split, generator, places_in_class
from bench.errors import InputError

_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Preparation:
    """How an image of any kind becomes an array of one size.

    Attributes:
        resize: the shorter side in pixels after scaling (bilinear, antialiased), or None to leave it.
        crop: side of the central square in pixels, or None for the whole image.
        channels: 1 for grey, 3 for colour.
    """

    resize: int | None = None
    crop: int | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f"Expected channels=1 (grey) or channels=3 (colour), but got {self.channels}.")
        if any(size is not None and size < 1 for size in (self.resize, self.crop)):
            raise InputError(f"Expected resize= and crop= from 1, but got {self.resize} and {self.crop}.")
        if self.resize and self.crop and self.crop > self.resize:
            raise InputError(f"Expected crop= of at most resize={self.resize}, but got {self.crop}.")

    def __call__(self, image: Image.Image) -> np.ndarray:
        """An 8-bit array of shape (c, h, w); raises ValueError where the image is smaller than the crop."""
        image = image.convert("RGB" if self.channels == 3 else "L")
        if self.resize:
            short = min(image.size)
            size = (self.resize * image.width // short, self.resize * image.height // short)  # as torchvision rounds
            image = image.resize(size, Image.Resampling.BILINEAR)
        if self.crop:
            if self.crop > min(image.size):
                raise ValueError(f"crop={self.crop} is more than its {image.width}×{image.height} pixels")
            left, top = round((image.width - self.crop) / 2), round((image.height - self.crop) / 2)
            image = image.crop((left, top, left + self.crop, top + self.crop))
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def read_all(read: Callable[[int], np.ndarray], indices: Indices) -> Bytes:
    """The images of shape (c, h, w) that `read` gives for each index, in several threads, as one batch."""
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        images = list(pool.map(read, indices.tolist()))
    shapes = sorted({image.shape[1:] for image in images})
    if len(shapes) > 1:
        raise InputError(
            f"The images differ in size (height × width: {shapes[0]}, {shapes[-1]}); pass resize= and crop=."
        )
    return torch.from_numpy(np.stack(images))


def folder(
    root: Path,
    resize: int | None = None,
    crop: int | None = None,
    train: str = "0",
    channels: int = 3,
    seed: int = 0,
) -> Dataset:
    """`folder:PATH`, any folder of class folders; resize=, crop=, train=FRACTION or train=FOLDER.

    The classes are the folders' names in alphabetical order.

    Where `root` holds a folder train/ and a folder test/ or val/, those are the splits. Else all images are
    for evaluation, less the share that `train` sets apart, unless `train` is another folder.

    Args:
        root: the folder.
        resize: shorter side in pixels after scaling; None leaves the images as they are.
        crop: side of the central square in pixels; None takes the whole image.
        train: share of each class's images to learn from, in [0, 1), one image at least staying for evaluation
            (of the classes, where each has a single image); or a folder with the same classes.
        channels: 3 turns grey images to colour, 1 colour to grey.
        seed: which images a share takes.

    Raises:
        InputError: a folder is missing or empty, a class has no image, there is only one class, two folders
            differ in their classes, or a parameter is out of range. An image that cannot be read raises it
            when it is loaded.
    """
    prepare = Preparation(resize, crop, channels)
    learn, evaluate = root / "train", next((root / name for name in ("test", "val") if (root / name).is_dir()), None)
    if evaluate and learn.is_dir():
        if train != "0":
            raise InputError(f"{root} has its own train/ folder; leave out train={train}.")
        return _two_folders(learn, evaluate, prepare)
    share = _share(train)
    if share is None:
        if Path(train).resolve() == root.resolve():
            raise InputError(f"The images of {root} cannot be for training and for evaluation; pass a share as train=.")
        return _two_folders(Path(train), root, prepare)
    classes, files, labels = _files(root)
    chosen = _set_apart(labels, share, seed)
    parts = [_split([files[i] for i in np.flatnonzero(rows)], labels[rows], prepare) for rows in (chosen, ~chosen)]
    return Dataset("folder", classes, *parts)


def _two_folders(learn: Path, evaluate: Path, prepare: Preparation) -> Dataset:
    classes, learn_files, learn_labels = _files(learn)
    others, files, labels = _files(evaluate)
    if classes != others:
        differing = _few(sorted(set(classes) ^ set(others)))
        raise InputError(
            f"Expected the same classes in {learn} and {evaluate}, but these are in one only: {differing}."
        )
    return Dataset("folder", classes, _split(learn_files, learn_labels, prepare), _split(files, labels, prepare))


def _share(train: str) -> float | None:
    """A share from text, or None where the text is no number but a path."""
    try:
        share = float(train)
    except ValueError:
        return None
    if not 0 <= share < 1:
        raise InputError(f"Expected train= to be a share from 0 to below 1, or a folder, but got {train}.")
    return share


def _files(root: Path) -> tuple[tuple[str, ...], list[Path], np.ndarray]:
    """Classes, image files in order, and their labels of shape (n,)."""
    if not root.is_dir():
        raise InputError(f"Expected a folder of class folders, but there is no folder {root}.")
    folders = sorted(one for one in root.iterdir() if one.is_dir() and not one.name.startswith("."))
    if len(folders) < 2:
        raise InputError(
            f"Expected {root} to hold two class folders or more, but it holds {len(folders)}: a folder a class, "
            "or train/ and test/ with a folder a class in each."
        )
    images = [sorted(one for one in folder.rglob("*") if one.suffix.lower() in _ENDINGS) for folder in folders]
    empty = [one.name for one, found in zip(folders, images, strict=True) if not found]
    if empty:
        endings = ", ".join(sorted(_ENDINGS))
        raise InputError(
            f"Expected image files ({endings}) for each class of {root}, but found none for {_few(empty)}."
        )
    labels = np.repeat(np.arange(len(folders)), [len(found) for found in images])
    return tuple(one.name for one in folders), [file for found in images for file in found], labels


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _set_apart(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which images are for training, shape (n,), bool: the share of each class, and never a whole class.

    Where every class has a single image, the share is of the classes: there is nothing else to split.
    """
    shuffled = generator(seed).permutation(len(labels))
    sizes = np.bincount(labels)
    if sizes.max() == 1:
        return np.isin(np.arange(len(labels)), shuffled[: round(share * len(labels))])
    quotas = np.minimum(np.round(share * sizes), sizes - 1)
    chosen = np.zeros(len(labels), bool)
    chosen[shuffled] = places_in_class(labels[shuffled]) < quotas[labels[shuffled]]
    return chosen


def _split(files: Sequence[Path], labels: np.ndarray, prepare: Preparation) -> Split:
    def read_file(index: int) -> np.ndarray:
        try:
            with Image.open(files[index]) as image:
                return prepare(image)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"The image {files[index]} cannot be used: {error}.") from error

    return Split(torch.from_numpy(labels), lambda indices: read_all(read_file, indices))
