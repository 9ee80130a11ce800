"""Names -> labelled images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bench.data.dataset import Dataset, Split, choose, fingerprint
from bench.data.digits import digits
from bench.data.folders import folder
from bench.data.photos import photos
from bench.data.torchvision import cifar10, cifar100, fashion_mnist, flowers102, gtsrb, imagenet, mnist, pcam
from bench.errors import InputError
from bench.plugins.specs import Spec, build, check_known

__all__ = ["DATASETS", "Dataset", "Split", "choose", "digits", "fingerprint", "folder", "load_dataset", "photos"]


DATASETS: dict[str, Callable[..., Dataset]] = {
    "photos": photos,
    "digits": digits,
    "folder": folder,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "imagenet": imagenet,
    "gtsrb": gtsrb,
    "pcam": pcam,
    "flowers102": flowers102,
}
"""Name -> the function that loads it; its parameters are those of the text form, its first line is in `bench list`."""


def load_dataset(text: str) -> Dataset:
    """The data set that a text such as `photos`, `photos:crop=64` or `folder:PATH,resize=256,crop=224` names.

    Raises:
        InputError: there is none of that name, a parameter is wrong, or the data cannot be had.
    """
    spec = Spec.parse(text)
    check_known(spec.name, DATASETS, "data set")
    parameters = dict(spec.parameters)
    if spec.name == "folder" and spec.first:
        parameters["root"] = spec.first
    elif spec.first:
        raise InputError(f"Expected {spec.name}:key=value, but got {text!r}.")
    if spec.name == "folder" and "root" not in parameters:
        raise InputError("Expected folder:PATH with the folder of the class folders.")
    made: Dataset = build(DATASETS[spec.name], f"data set {spec.name!r}", parameters, {})
    return replace(made, name=str(spec))
