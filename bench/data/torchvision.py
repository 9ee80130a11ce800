"""The data sets that torchvision knows, downloaded when they are first needed where torchvision can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.core import tensor_cache as disk
from bench.data.dataset import Dataset, Split
from bench.data.folders import Preparation, read_all
from bench.errors import InputError


@dataclass(frozen=True)
class Source:
    """What differs between torchvision's data sets.

    Attributes:
        kind: the class in torchvision.datasets.
        belongs: where its files belong below the root folder.
        argument, splits: what asks for the training images, and for those for evaluation.
        labels: an open data set -> its labels, without reading an image.
        classes: their names where the data set does not know them.
        resize, crop, channels: as `Preparation`.
        downloads: whether torchvision downloads it.
    """

    kind: str
    belongs: str
    argument: str = "split"
    splits: tuple[object, object] = ("train", "test")
    labels: Callable[[Any], Any] = lambda data: data.targets
    classes: tuple[str, ...] = ()
    resize: int | None = None
    crop: int | None = None
    channels: int = 3
    downloads: bool = True


def _pcam_labels(data: Any) -> Any:
    with data.h5py.File(data._base_folder / data._FILES[data._split]["targets"][0]) as file:
        return file["y"][:, 0, 0, 0]


_FLAGS = (True, False)
SOURCES = {
    "cifar10": Source("CIFAR10", "cifar-10-batches-py/", "train", _FLAGS),
    "cifar100": Source("CIFAR100", "cifar-100-python/", "train", _FLAGS),
    "mnist": Source("MNIST", "MNIST/raw/", "train", _FLAGS, channels=1),
    "fashion-mnist": Source("FashionMNIST", "FashionMNIST/raw/", "train", _FLAGS, channels=1),
    "imagenet": Source(
        "ImageNet",
        "ILSVRC2012_devkit_t12.tar.gz and ILSVRC2012_img_val.tar (for training also ILSVRC2012_img_train.tar)",
        splits=("train", "val"),
        resize=256,
        crop=224,
        downloads=False,
    ),
    "gtsrb": Source(
        "GTSRB",
        "gtsrb/",
        labels=lambda data: [label for _, label in data._samples],
        classes=tuple(map(str, range(43))),
        resize=32,
        crop=32,
    ),
    "pcam": Source("PCAM", "pcam/", labels=_pcam_labels, classes=("normal", "tumor")),
    "flowers102": Source(
        "Flowers102",
        "flowers-102/",
        labels=lambda data: data._labels,
        classes=tuple(map(str, range(1, 103))),
        resize=256,
        crop=224,
    ),
}


def loader(name: str) -> Callable[..., Dataset]:
    """The function that loads the data set of this name; its parameters are those of the text form."""
    source = SOURCES[name]

    def load(root: Path | None = None, resize: int | None = source.resize, crop: int | None = source.crop) -> Dataset:
        """Reads them through torchvision.

        Args:
            root: the folder that holds torchvision's folder of it; by default in the cache of this project.
            resize: shorter side in pixels after scaling, None to leave it.
            crop: side of the central square in pixels, None for the whole image.

        Raises:
            InputError: the data are neither there nor to be had, or a parameter is out of range.
        """
        prepare = Preparation(resize, crop, source.channels)
        place = root or disk.folder() / "datasets"
        test = cache(lambda: _open(name, place, source.splits[1]))
        train = cache(lambda: _open(name, place, source.splits[0]))
        known = source.classes or tuple(one if isinstance(one, str) else one[0] for one in test().classes)
        return Dataset(name, known, _split(train, source, prepare), _split(test, source, prepare))

    load.__doc__ = f"{source.kind}: {load.__doc__}"
    return load


def _open(name: str, root: Path, split: object) -> Any:
    """Torchvision's own data set, downloaded if it is not there."""
    import torchvision.datasets

    source = SOURCES[name]
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
        f"expects them: {source.belongs}; or name another folder with {name}:root=FOLDER."
    ) from problem


def _split(data: Callable[[], Any], source: Source, prepare: Preparation) -> Split:
    def read(index: int) -> np.ndarray:
        try:
            return prepare(data()[index][0])
        except (OSError, SyntaxError, ValueError) as error:
            raise InputError(f"Image {index} of torchvision's {source.kind} cannot be used: {error}.") from error

    return Split(
        lambda: torch.as_tensor(np.asarray(source.labels(data())), dtype=torch.int64),
        lambda indices: read_all(read, indices),
    )
