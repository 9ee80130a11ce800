"""Data sets in folders of image files, one folder per class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from bench.core.files import content_hash
from bench.core.identity import identity_of
from bench.data.content import FileHashes, pixel_hash
from bench.data.dataset import Dataset, Split, generator, places_in_class
from bench.data.pixels import Interpolation, Preparation, open_image, read_all
from bench.errors import InputError

_ENDINGS = {
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".pnm", ".png", ".ppm", ".tif", ".tiff", ".webp",
}  # fmt: skip
_UNREAD = {".avif", ".dng", ".exr", ".heic", ".heif", ".jp2", ".npy", ".psd", ".svg", ".tga"}
"""Endings of images that are left out, with a warning."""

_NO_CLASS = "__MACOSX"
"""A folder that macOS adds to archives; it holds no images but files with their names."""


@dataclass(frozen=True)
class _Files:
    """The image files in class folders.

    Attributes:
        root: the folder of the class folders.
        classes: the class folders' names in alphabetical order.
        names: the paths of the image files relative to `root`, in the order of their classes and folders.
        labels: the class of each, shape (n,).
        warnings: what may be wrong with them.
    """

    root: Path
    classes: tuple[str, ...]
    names: list[str]
    labels: np.ndarray
    warnings: tuple[str, ...]

    @cached_property
    def _hashes(self) -> FileHashes:
        return FileHashes(self.root, self.names)

    @cached_property
    def contents(self) -> list[str]:
        """A hash of each file."""
        return self._hashes.take(content_hash)

    @cached_property
    def pixels(self) -> list[str]:
        """A hash of what each image shows."""
        return self._hashes.take(pixel_hash)

    def split(self, rows: np.ndarray, prepare: Preparation) -> Split:
        """Some of the images, prepared."""
        labels = self.labels[rows]

        def read(place: int) -> np.ndarray:
            path = self.root / self.names[rows[place]]
            image = open_image(path)
            try:
                return prepare(image)
            except ValueError as error:
                raise InputError(f"The image {path} cannot be used: {error}.") from error

        def fingerprint() -> str:
            parts = [repr(prepare), *(f"{label} {self.contents[row]}" for row, label in zip(rows, labels, strict=True))]
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

        return Split(torch.from_numpy(labels), lambda indices: read_all(read, indices), fingerprint)


def folder(
    root: Path,
    resize: int | None = None,
    crop: int | None = None,
    train: str = "0",
    channels: int = 3,
    seed: int = 0,
    name: str | None = None,
    interpolation: Interpolation = "bilinear",
) -> Dataset:
    """Image files in class folders; the classes are the folders' names in alphabetical order.

    If `root` has a folder train/ and a folder test/ or val/, they are the splits. Otherwise all images are for
    evaluation, less the share that `train` sets apart, unless `train` is another folder. Links are followed; names that
    begin with a dot are skipped. Images are read as a person sees them (`open_image`).

    Args:
        root: the folder.
        resize: shorter side in pixels after scaling; None leaves the images as they are.
        crop: side of the central square in pixels; None takes the whole image.
        train: share of each class's images to learn from, in [0, 1), at least one image staying for evaluation (share
            of the classes, if each has a single image); or a folder with the same classes.
        channels: 3 turns grey images into colour, 1 colour into grey.
        seed: of the choice of images for a share.
        name: what records call the folder; by default its own name.
        interpolation: of the scaling: bilinear, bicubic or lanczos.

    Raises:
        InputError: a folder is missing or empty, a class has no image, there is only one class, two folders differ in
            their classes, an image for evaluation is also one for training, or a parameter is out of range. An image
            that cannot be read raises it when it is loaded.
    """
    prepare = Preparation(resize, crop, channels, interpolation)
    learn, evaluate = root / "train", next((root / part for part in ("test", "val") if (root / part).is_dir()), None)
    share = _training_share(train)
    if evaluate and learn.is_dir():
        if train != "0":
            raise InputError(f"{root} has its own train/ folder; leave out train={train}.")
        training, evaluated = _find(learn), _find(evaluate)
        folders = {_identity(root, [training, evaluated], name): root}
    elif share is None:
        learn, evaluate = Path(train), root
        if learn.resolve() == root.resolve():
            raise InputError(f"The images of {root} cannot be for training and for evaluation; pass a share as train=.")
        training, evaluated = _find(learn), _find(evaluate)
        folders = {_identity(root, [evaluated], name): root, _identity(learn, [training]): learn}
    else:
        files = _find(root)
        apart = _set_apart(files.labels, share, seed)
        rows = np.flatnonzero(apart), np.flatnonzero(~apart)
        return _dataset(files, rows[0], files, rows[1], prepare, {_identity(root, [files], name): root})
    if training.classes != evaluated.classes:
        differing = _few(sorted(set(training.classes) ^ set(evaluated.classes)))
        raise InputError(f"Expected the same classes in {learn} and {evaluate}, but only one has these: {differing}.")
    rows = np.arange(len(training.names)), np.arange(len(evaluated.names))
    return _dataset(training, rows[0], evaluated, rows[1], prepare, folders)


def _identity(root: Path, parts: Sequence[_Files], name: str | None = None) -> str:
    """What records call a folder; it changes with the name or the content of any image file."""
    digest = hashlib.sha256()
    for files in parts:
        for path, content in zip(files.names, files.contents, strict=True):
            digest.update(os.fsencode(path).replace(b"\\", b"/") + f" {content}\n".encode())
    return identity_of(root, digest.hexdigest(), name)


def _dataset(
    training: _Files,
    learn: np.ndarray,
    evaluated: _Files,
    evaluate: np.ndarray,
    prepare: Preparation,
    folders: Mapping[str, Path],
) -> Dataset:
    if len(learn):
        _refuse_copies(training, learn, evaluated, evaluate)
    splits = training.split(learn, prepare), evaluated.split(evaluate, prepare)
    warnings = tuple(dict.fromkeys(training.warnings + evaluated.warnings))
    return Dataset("folder", evaluated.classes, *splits, warnings, folders)


def _refuse_copies(training: _Files, learn: np.ndarray, evaluated: _Files, evaluate: np.ndarray) -> None:
    """Raises InputError if an image for evaluation shows, pixel for pixel, what one for training shows."""
    learned = {training.pixels[row]: row for row in reversed(learn)}
    copies = [row for row in evaluate if evaluated.pixels[row] in learned]
    if copies:
        copy = evaluated.root / evaluated.names[copies[0]]
        original = training.root / training.names[learned[evaluated.pixels[copies[0]]]]
        raise InputError(
            f"Expected images for evaluation that are not among the training images, but {copy} shows the same pixels "
            f"as {original} ({len(copies)} such {'copy' if len(copies) == 1 else 'copies'} in all). Remove the copies."
        )


def _warnings(root: Path, classes: Sequence[str], unread: Sequence[str]) -> Iterator[str]:
    """What may be wrong with a folder: numbers in the order of text, images of other formats."""
    if all(name.isdecimal() for name in classes) and list(classes) != sorted(classes, key=int):
        yield (
            f"the class folders of {root} are numbers but their order is that of text ({_few(classes)}), so folder "
            f"{classes[1]!r} is class 1; if the weights count in another order, add leading zeros (01, 02, …, 10)"
        )
    if unread:
        yield f"{len(unread)} files of {root} are left out, since their format is not read ({_few(unread)})"


def _training_share(train: str) -> float | None:
    """The share that a text gives, or None if the text is not a number but a path."""
    try:
        share = float(train)
    except ValueError:
        return None
    if not 0 <= share < 1:
        raise InputError(f"Expected train= to be a share from 0 to below 1, or a folder, but got {train}.")
    return share


def _find(root: Path) -> _Files:
    """The image files in the class folders of `root`."""
    if not root.is_dir():
        raise InputError(f"Expected a folder of class folders, but there is no folder {root}.")
    folders = sorted(entry for entry in _entries(root) if entry.is_dir() and _counts(entry.name))
    if len(folders) < 2:
        raise InputError(
            f"Expected {root} to hold two class folders or more, but it holds {len(folders)}: a folder for each class, "
            "or train/ and test/ with a folder for each class."
        )
    places = [_place(path) for path in (root, *folders)]
    if len(set(places)) < len(places):
        raise InputError(f"Expected a folder of its own for each class, but two names in {root} lead to one folder.")
    files = [sorted(_images(folder, places), key=lambda name: Path(name).parts) for folder in folders]
    images = [[name for name in names if _ending(name) in _ENDINGS] for names in files]
    empty = [folder.name for folder, names in zip(folders, images, strict=True) if not names]
    if empty:
        endings = ", ".join(sorted(_ENDINGS))
        raise InputError(
            f"Expected image files ({endings}) for each class of {root}, but found none for {_few(empty)}."
        )
    classes = tuple(folder.name for folder in folders)
    unread = [name for names in files for name in names if _ending(name) in _UNREAD]
    return _Files(
        root,
        classes,
        names=[name for names in images for name in names],
        labels=np.repeat(np.arange(len(classes)), [len(names) for names in images]),
        warnings=tuple(_warnings(root, classes, unread)),
    )


def _images(root: Path, places: Iterable[tuple[int, int]]) -> Iterator[str]:
    """The image files below a class folder, in any order, relative to the folder that holds it.

    Links are followed, but no folder is entered twice.

    Args:
        root: the class folder.
        places: of the class folders and of the folder that holds them; a link must not lead into another of them.
    """
    entered = set(places) - {_place(root)}
    above = len(os.fspath(root.parent / "x")) - 1
    for path, folders, names in os.walk(root, onerror=_refuse_unreadable, followlinks=True):
        place = _place(Path(path))
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        folders[:] = sorted(name for name in folders if _counts(name))
        images = (name for name in names if _counts(name) and _ending(name) in _ENDINGS | _UNREAD)
        yield from (f"{path[above:]}{os.sep}{name}" for name in images)


def _counts(name: str) -> bool:
    """Whether a file or folder of this name belongs to the data, and not to the system or an editor."""
    return not name.startswith(".") and name != _NO_CLASS


def _ending(name: str) -> str:
    return "." + name.rpartition(".")[2].lower()


def _place(folder: Path) -> tuple[int, int]:
    """Where a folder is on disk, the same through all links to it."""
    status = folder.stat()
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        _refuse_unreadable(error)


def _refuse_unreadable(error: OSError) -> NoReturn:
    raise InputError(f"The folder {error.filename} cannot be read: {error.strerror or error}.") from error


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _set_apart(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which images are for training, shape (n,), bool: the share of each class, and never a whole class.

    If every class has a single image, the share is of the classes: there is nothing else to split.
    """
    shuffled = generator(seed).permutation(len(labels))
    sizes = np.bincount(labels)
    if sizes.max() == 1:
        return np.isin(np.arange(len(labels)), shuffled[: round(share * len(labels))])
    quotas = np.minimum(np.round(share * sizes), sizes - 1)
    chosen = np.zeros(len(labels), bool)
    chosen[shuffled] = places_in_class(labels[shuffled]) < quotas[labels[shuffled]]
    return chosen
