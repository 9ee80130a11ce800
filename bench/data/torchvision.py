"""Torchvision's data sets, downloaded on first use where torchvision can."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.core.files import content_hash
from bench.core.tensor_cache import cache_folder
from bench.data.content import FileHashes
from bench.data.dataset import Dataset, Split
from bench.data.pixels import Preparation, read_all
from bench.errors import InputError


@dataclass(frozen=True)
class _Source:
    """What differs between torchvision's data sets.

    Attributes:
        kind: the class in torchvision.datasets.
        files: where its files belong below the root folder.
        paths: an open data set -> the files that it reads.
        argument, splits: what asks for the training images, and for those for evaluation.
        labels: an open data set -> its labels, without reading an image.
        classes: their names where the data set does not know them.
        channels: as `Preparation`.
        downloads: whether torchvision downloads it.
    """

    kind: str
    files: str
    paths: Callable[[Any], list[Path]]
    argument: str = "split"
    splits: tuple[object, object] = ("train", "test")
    labels: Callable[[Any], Any] = lambda data: data.targets
    classes: tuple[str, ...] = ()
    channels: int = 3
    downloads: bool = True


def _pcam_labels(data: Any) -> Any:
    with data.h5py.File(data._base_folder / data._FILES[data._split]["targets"][0]) as file:
        return file["y"][:, 0, 0, 0]


def _cifar_paths(data: Any) -> list[Path]:
    names = data.train_list if data.train else data.test_list
    return [Path(data.root, data.base_folder, name) for name, _ in names]


def _mnist_paths(data: Any) -> list[Path]:
    return sorted(Path(data.raw_folder).glob("train-*" if data.train else "t10k-*"))


_FLAGS = (True, False)
_SOURCES = {
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py/", _cifar_paths, "train", _FLAGS),
    "cifar100": _Source("CIFAR100", "cifar-100-python/", _cifar_paths, "train", _FLAGS),
    "mnist": _Source("MNIST", "MNIST/raw/", _mnist_paths, "train", _FLAGS, channels=1),
    "fashion-mnist": _Source("FashionMNIST", "FashionMNIST/raw/", _mnist_paths, "train", _FLAGS, channels=1),
    "imagenet": _Source(
        "ImageNet",
        "ILSVRC2012_devkit_t12.tar.gz and ILSVRC2012_img_val.tar (for training also ILSVRC2012_img_train.tar)",
        lambda data: [Path(path) for path, _ in data.samples],
        splits=("train", "val"),
        downloads=False,
    ),
    "gtsrb": _Source(
        "GTSRB",
        "gtsrb/",
        lambda data: [Path(path) for path, _ in data._samples],
        labels=lambda data: [label for _, label in data._samples],
        classes=tuple(map(str, range(43))),
    ),
    "pcam": _Source(
        "PCAM",
        "pcam/",
        lambda data: [data._base_folder / part[0] for part in data._FILES[data._split].values()],
        labels=_pcam_labels,
        classes=("normal", "tumor"),
    ),
    "flowers102": _Source(
        "Flowers102",
        "flowers-102/",
        lambda data: data._image_files,
        labels=lambda data: data._labels,
        classes=tuple(map(str, range(1, 103))),
    ),
}


def cifar10(root: Path | None = None, resize: int | None = None, crop: int | None = None) -> Dataset:
    """CIFAR-10 through torchvision."""
    return _dataset("cifar10", root, resize, crop)


def cifar100(root: Path | None = None, resize: int | None = None, crop: int | None = None) -> Dataset:
    """CIFAR-100 through torchvision."""
    return _dataset("cifar100", root, resize, crop)


def mnist(root: Path | None = None, resize: int | None = None, crop: int | None = None) -> Dataset:
    """MNIST through torchvision."""
    return _dataset("mnist", root, resize, crop)


def fashion_mnist(root: Path | None = None, resize: int | None = None, crop: int | None = None) -> Dataset:
    """Fashion-MNIST through torchvision."""
    return _dataset("fashion-mnist", root, resize, crop)


def imagenet(root: Path | None = None, resize: int | None = 256, crop: int | None = 224) -> Dataset:
    """ImageNet (ILSVRC 2012) through torchvision; not downloaded: `imagenet:root=FOLDER`."""
    return _dataset("imagenet", root, resize, crop)


def gtsrb(root: Path | None = None, resize: int | None = 32, crop: int | None = 32) -> Dataset:
    """German traffic signs through torchvision."""
    return _dataset("gtsrb", root, resize, crop)


def pcam(root: Path | None = None, resize: int | None = None, crop: int | None = None) -> Dataset:
    """PatchCamelyon histology through torchvision."""
    return _dataset("pcam", root, resize, crop)


def flowers102(root: Path | None = None, resize: int | None = 256, crop: int | None = 224) -> Dataset:
    """Oxford 102 flowers through torchvision."""
    return _dataset("flowers102", root, resize, crop)


def _dataset(name: str, root: Path | None, resize: int | None, crop: int | None) -> Dataset:
    """One of torchvision's data sets.

    Args:
        name: of the source.
        root: the folder that holds torchvision's folder of it; by default in the cache of this project.
        resize: shorter side in pixels after scaling, None to leave it.
        crop: side of the central square in pixels, None for the whole image.

    Raises:
        InputError: the data are neither there nor can be downloaded, or a parameter is out of range.
    """
    source = _SOURCES[name]
    prepare = Preparation(resize, crop, source.channels)
    folder = root or cache_folder() / "datasets"
    test = cache(lambda: _open(name, folder, source.splits[1]))
    train = cache(lambda: _open(name, folder, source.splits[0]))
    classes = source.classes or tuple(name if isinstance(name, str) else name[0] for name in test().classes)
    return Dataset(name, classes, _split(train, source, prepare), _split(test, source, prepare))


def _open(name: str, root: Path, split: object) -> Any:
    """Torchvision's own data set, downloaded if it is not there."""
    import torchvision.datasets

    source = _SOURCES[name]
    make = partial(getattr(torchvision.datasets, source.kind), root, **{source.argument: split})
    try:
        return make()
    except (RuntimeError, OSError) as absent:
        problem: Exception = absent
    if source.downloads:
        try:
            return make(download=True)
        except (RuntimeError, OSError, ImportError) as error:
            problem = error
    raise InputError(
        f"The data set {name!r} is not in {root} ({problem}). Its files belong there as torchvision's {source.kind} "
        f"expects them: {source.files}; or name another folder with {name}:root=FOLDER."
    ) from problem


def _split(data: Callable[[], Any], source: _Source, prepare: Preparation) -> Split:
    def read(index: int) -> np.ndarray:
        try:
            return prepare(data()[index][0])
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"Image {index} of torchvision's {source.kind} cannot be used: {error}.") from error

    def labels() -> torch.Tensor:
        return torch.as_tensor(np.asarray(source.labels(data())), dtype=torch.int64)

    def fingerprint() -> str:
        paths = source.paths(data())
        root = os.path.commonpath([path.parent for path in paths])
        names = [os.path.relpath(path, root) for path in paths]
        digest = hashlib.sha256(repr(prepare).encode() + labels().numpy().tobytes())
        digest.update("\n".join(FileHashes(Path(root), names).take(content_hash)).encode())
        return digest.hexdigest()[:12]

    return Split(labels, lambda indices: read_all(read, indices), fingerprint)
