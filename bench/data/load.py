"""Names -> labelled images."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.data.dataset import Dataset, Split, choose, fingerprint
from bench.data.digits import digits
from bench.data.folders import folder
from bench.data.photos import photos
from bench.data.torchvision import cifar10, cifar100, fashion_mnist, flowers102, gtsrb, imagenet, mnist, pcam
from bench.errors import InputError
from bench.plugins.specs import Spec, build, canonical, check_known, parse_value, write_value

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
        InputError: there is none of that name, a parameter is wrong, or the data cannot be read.
    """
    try:
        spec = Spec.parse(text)
        check_known(spec.name, DATASETS, "data set")
        parameters = dict(spec.parameters)
        if spec.first and spec.name != "folder":
            raise InputError(f"Expected {spec.name}:key=value, but got {text!r}.")
        if spec.first:
            parameters["root"] = spec.first
        if spec.name == "folder" and "root" not in parameters:
            raise InputError("Expected folder:PATH with the folder of the class folders.")
        what = f"data set {spec.name!r}"
        dataset: Dataset = build(DATASETS[spec.name], what, parameters, {})
    except InputError as error:
        _explain_separators(text, error)
        raise
    spec = canonical(replace(spec, parameters=tuple(parameters.items())), DATASETS[spec.name], what)
    parameters = dict(spec.parameters)
    parameters.pop("root", None)
    if not dataset.folders:
        return replace(dataset, name=str(Spec(spec.name, None, tuple(parameters.items()))))
    parameters.pop("name", None)
    root, *train = dataset.folders
    if train:
        parameters["train"] = train[0]
    elif "train" in parameters:
        parameters["train"] = write_value(parse_value(parameters["train"], float))
    return replace(dataset, name=str(Spec(spec.name, root, tuple(parameters.items()))))


def _explain_separators(text: str, error: InputError) -> None:
    """Raises an InputError that says how to pass a folder whose path holds what separates parameters."""
    items = text.partition(":")[2].split(",")
    for count in range(len(items), 0, -1):
        path = Path(",".join(items[:count]))
        if re.search("[,=]", str(path)) and path.is_dir():
            raise InputError(
                f"Expected a path without , and = but got {path}. Make a link to it and pass the link: "
                f"ln -s {shlex.quote(str(path.resolve()))} images"
            ) from error
