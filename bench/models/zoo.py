"""The models that have a name: what makes each of them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import nn

from bench.contracts import Classifier
from bench.errors import InputError, MissingExtraError
from bench.models.nets import MnistCNN, Net, ResNet20, SmallResNet
from bench.plugins.specs import check_known
from bench.weights_file import load_weights

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BUNDLED = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class Wanted:
    """What a model must fit.

    Attributes:
        num_classes, image_shape: of the data set; the shape is (c, h, w).
        weights: a file that will be loaded into it, or None.
    """

    num_classes: int
    image_shape: tuple[int, int, int]
    weights: Path | None = None

    @property
    def channels(self) -> int:
        """1 for grey, 3 for colour."""
        return self.image_shape[0]

    def refusal(self, model: str, answers: int | str) -> str:
        """What to say of a model that answers with other classes."""
        return (
            f"Expected a model for the data set's {self.num_classes} classes, but {model} answers with {answers}. "
            "Choose a data set, a model or weights that fit."
        )


def photos_cnn(wanted: Wanted, trained: bool = True) -> Net:
    """A small residual net, trained on `photos` (the default).

    `python tools/train_classifier.py photos-cnn` made its weights.

    Args:
        wanted: what it must fit.
        trained: whether it comes with those weights; else, and where a file is given, it is built for any classes.
    """
    bundled = trained and wanted.weights is None
    if bundled and (wanted.num_classes, wanted.channels) != (10, 3):
        raise InputError(
            f"photos-cnn knows the 10 classes of photos in colour, but the data set has {wanted.num_classes} "
            f"classes and {wanted.channels} channels. Choose another model, or give weights of your own."
        )
    net = Net(SmallResNet(wanted.num_classes, wanted.channels), wanted.num_classes, (0.5,), (0.25,))
    if bundled:
        load_weights(net.network, _BUNDLED / "photos-cnn.safetensors")
    return net


def mnist_cnn(wanted: Wanted) -> Net:
    """Two convolutions and two linear layers for small images, normalised as MNIST is; without weights."""
    if min(wanted.image_shape[1:]) < 6:
        raise InputError(f"Expected images of 6×6 pixels or more for mnist-cnn, but got {wanted.image_shape[1:]}.")
    return Net(MnistCNN(wanted.num_classes, wanted.image_shape), wanted.num_classes, (0.1307,), (0.3081,))


def resnet20(wanted: Wanted) -> Net:
    """ResNet-20 for CIFAR with option-A shortcuts, normalised as ImageNet is; without weights."""
    return Net(ResNet20(wanted.num_classes, wanted.channels), wanted.num_classes, *_of_channels(wanted, *_IMAGENET))


def torchvision_model(wanted: Wanted, name: str, weights: str | None = None) -> Net:
    """`torchvision:NAME`, with weights=DEFAULT or a named entry.

    Args:
        wanted: what it must fit.
        name: as torchvision.models.get_model knows it.
        weights: DEFAULT or another entry of its weights, which also tells the normalisation; downloaded if need be.
            None builds it for any number of classes.
    """
    import torchvision

    check_known(name, torchvision.models.list_models(module=torchvision.models), "model of torchvision")
    if weights is None:
        aux = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}  # they warn where it is left out
        network = torchvision.models.get_model(name, num_classes=wanted.num_classes, **aux)
        return Net(network, wanted.num_classes, *_IMAGENET)
    entries = torchvision.models.get_model_weights(name)
    check_known(weights, entries.__members__, f"weights of torchvision's {name}")
    entry = entries[weights]
    categories, scaling = len(entry.meta["categories"]), entry.transforms()
    if categories != wanted.num_classes:
        raise InputError(wanted.refusal(f"torchvision:{name},weights={weights}", categories))
    try:
        network = torchvision.models.get_model(name, weights=entry)
    except (OSError, RuntimeError) as error:  # no network, or another file than expected
        raise InputError(
            f"The weights {entry.url} cannot be downloaded ({error}). Fetch them where there is a network, and give "
            "the file as the model's weights."
        ) from error
    return Net(network, wanted.num_classes, tuple(scaling.mean), tuple(scaling.std))


def timm_model(wanted: Wanted, name: str, **parameters: Any) -> Net:
    """`timm:NAME`, with the parameters of its constructor (extra: timm); without weights unless pretrained=true.

    Args:
        wanted: what it must fit.
        name: as timm.create_model knows it.
        parameters: such as pad_type="same".
    """
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(f"The model timm:{name}", "timm") from error
    settings = {"num_classes": wanted.num_classes, "in_chans": wanted.channels} | parameters
    try:
        network = timm.create_model(name, **settings)
    except Exception as error:  # timm raises whatever its many constructors do
        raise InputError(f"timm cannot make {name!r} with {settings}: {error}") from error
    usual = cast("dict[str, Any]", network.default_cfg)
    return Net(network, wanted.num_classes, *_of_channels(wanted, usual["mean"], usual["std"]))


def python_model(wanted: Wanted, address: str, **parameters: Any) -> Classifier:
    """`python:MODULE:CALLABLE`, a network of your own; the callable gets the parameters.

    Args:
        wanted: what it must fit; `num_classes` is passed to a callable that has such a parameter.
        address: such as acme.nets:make; it returns a Classifier, or a module for which mean is 0 and std 1.
        parameters: for the callable.
    """
    module_name, _, attribute = address.partition(":")
    try:
        make = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"Expected python:MODULE:CALLABLE, but {address!r} cannot be imported: {error}. A module in the current "
            "folder is found with PYTHONPATH=. before the command."
        ) from error
    if "num_classes" in inspect.signature(make).parameters:
        parameters = {"num_classes": wanted.num_classes} | parameters
    network = make(**parameters)
    if not isinstance(network, nn.Module):
        raise InputError(f"Expected a torch module from {address}, but got {type(network).__name__}.")
    return network if isinstance(network, Classifier) else Net(network, wanted.num_classes)


MODELS: dict[str, Callable[..., Classifier]] = {
    "photos-cnn": photos_cnn,
    "mnist-cnn": mnist_cnn,
    "resnet20": resnet20,
    "torchvision": torchvision_model,
    "timm": timm_model,
    "python": python_model,
}
"""Name -> the function that makes it, from `Wanted` and the parameters of the text form."""


def _of_channels(
    wanted: Wanted, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Normalisation of colour images, averaged for grey ones."""
    if wanted.channels == len(mean):
        return tuple(mean), tuple(std)
    return (sum(mean) / len(mean),), (sum(std) / len(std),)
