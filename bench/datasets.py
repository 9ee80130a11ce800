"""Names -> labelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from bench.errors import InputError
from bench.folders import folder
from bench.photos import photos, shipped
from bench.specs import Spec, build, lookup
from bench.split import Dataset, Split, choose, fingerprint
from bench.torchvision_data import SOURCES, loader

__all__ = ["DATASETS", "Dataset", "Split", "choose", "digits", "fingerprint", "folder", "load_dataset", "photos"]


def digits(size: int = 8) -> Dataset:
    """Handwritten digits of scikit-learn: 1,797 grey images of 8×8 pixels with 17 levels, by 13 writers.

    They stand in the order of their writers; the first 70 % (1,257) are for training and the last 540 for
    evaluation, so that most writers are in one part only.

    Args:
        size: side of the images in pixels; more than 8 enlarges them (bilinear).

    Raises:
        InputError: `size` is less than 8.
    """
    if size < 8:
        raise InputError(f"Expected digits with size= from 8, but got {size}.")
    table = np.loadtxt(shipped("sklearn", "datasets/data/digits.csv.gz"), delimiter=",", dtype=np.float32)
    levels = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 8, 8) / 16
    images = (F.interpolate(levels, (size, size), mode="bilinear") * 255).round().to(torch.uint8)
    labels = torch.from_numpy(table[:, -1]).to(torch.int64)
    first, last = slice(0, 1257), slice(1257, None)
    parts = [Split(labels[rows], images[rows].__getitem__) for rows in (first, last)]
    return Dataset("digits", tuple("0123456789"), *parts)


DATASETS: dict[str, Callable[..., Dataset]] = {
    "photos": photos,
    "digits": digits,
    "folder": folder,
    **{name: loader(name) for name in SOURCES},
}
"""Name -> the function that loads it; its parameters are those of the text form."""


def load_dataset(text: str) -> Dataset:
    """The data set that a text such as `photos`, `photos:crop=64` or `folder:PATH,resize=256,crop=224` names.

    Raises:
        InputError: there is none of that name, a parameter is wrong, or the data cannot be had.
    """
    spec = Spec.parse(text)
    lookup(spec.name, DATASETS, "data set")
    parameters = dict(spec.parameters)
    if spec.name == "folder" and spec.first:
        parameters["root"] = spec.first
    elif spec.first:
        raise InputError(f"Expected {spec.name}:key=value, but got {text!r}.")
    if spec.name == "folder" and "root" not in parameters:
        raise InputError("Expected folder:PATH with the folder of the class folders.")
    made: Dataset = build(DATASETS[spec.name], f"data set {spec.name!r}", parameters, {})
    return replace(made, name=str(spec))
