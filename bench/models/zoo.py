"""The models that have a name, and the functions that make them."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from torch import nn

from bench.contracts import Classifier
from bench.errors import InputError, MissingExtraError
from bench.models.hubs import huggingface_model, robustbench_model
from bench.models.nets import MnistCNN, Net, ResNet20, SmallResNet
from bench.models.requirements import Requirements
from bench.plugins.specs import Spec, check_known
from bench.weights_file import load_weights, shipped_weights

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photos_cnn(required: Requirements, trained: bool = True) -> Net:
    """A small residual net, trained on `photos` (the default).

    `python tools/train_classifier.py photos-cnn` made its weights.

    Args:
        required: what it must fit.
        trained: whether it comes with those weights. Without them, or with a file of weights, it fits any classes.
    """
    bundled = trained and required.weights is None
    if bundled and (required.num_classes, required.channels) != (10, 3):
        raise InputError(
            f"photos-cnn knows the 10 classes of photos in colour, but the data set has {required.num_classes} "
            f"classes and {required.channels} channels. Choose another model, or give weights of your own."
        )
    net = Net(SmallResNet(required.num_classes, required.channels), required.num_classes, (0.5,), (0.25,), bundled)
    if bundled:
        load_weights(net.network, shipped_weights("photos-cnn"))
    return net


def mnist_cnn(required: Requirements) -> Net:
    """Two convolutions and two linear layers for small images, normalised as MNIST is; without weights."""
    if min(required.image_shape[1:]) < 6:
        raise InputError(f"Expected images of 6×6 pixels or more for mnist-cnn, but got {required.image_shape[1:]}.")
    network = MnistCNN(required.num_classes, required.image_shape)
    return Net(network, required.num_classes, (0.1307,), (0.3081,), trained=False)


def resnet20(required: Requirements) -> Net:
    """ResNet-20 for CIFAR with option-A shortcuts, normalised as ImageNet is; without weights."""
    network = ResNet20(required.num_classes, required.channels)
    return Net(network, required.num_classes, *_of_channels(required, *_IMAGENET), trained=False)


def torchvision_model(required: Requirements, name: str, weights: str | None = None) -> Net:
    """`torchvision:NAME`, with weights=DEFAULT or a named entry.

    Args:
        required: what it must fit.
        name: as torchvision.models.get_model knows it.
        weights: DEFAULT or another entry of its weights, which also sets the normalisation; downloaded if necessary.
            None builds it for any number of classes.
    """
    import torchvision

    check_known(name, torchvision.models.list_models(module=torchvision.models), "model of torchvision")
    if weights is None:
        aux = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}  # these warn without it
        network = torchvision.models.get_model(name, num_classes=required.num_classes, **aux)
        return Net(network, required.num_classes, *_IMAGENET, trained=False)
    entries = torchvision.models.get_model_weights(name)
    check_known(weights, entries.__members__, f"weights of torchvision's {name}")
    entry = entries[weights]
    categories, scaling = len(entry.meta["categories"]), entry.transforms()
    if categories != required.num_classes:
        raise InputError(required.refusal(f"torchvision:{name},weights={weights}", categories))
    try:
        network = torchvision.models.get_model(name, weights=entry)
    except (OSError, RuntimeError) as error:  # no network, or another file than expected
        raise InputError(
            f"The weights {entry.url} cannot be downloaded ({error}). Download them on a machine with a network, and "
            "give the file as the model's weights."
        ) from error
    return Net(network, required.num_classes, tuple(scaling.mean), tuple(scaling.std))


def timm_model(required: Requirements, name: str, **parameters: Any) -> Net:
    """`timm:NAME`, with the parameters of its constructor (extra: timm); without weights unless pretrained=true.

    `timm:local-dir:FOLDER,pretrained=true` reads config.json and model.safetensors of a folder, without a network. With
    weights of its own, images in a folder are scaled and cropped as its configuration says, unless resize= or crop= is
    given.

    Args:
        required: what it must fit.
        name: as timm.create_model knows it.
        parameters: such as pad_type="same".
    """
    try:
        import timm
    except ImportError as error:
        raise MissingExtraError(f"The model timm:{name}", "timm") from error
    settings = {"num_classes": required.num_classes, "in_chans": required.channels} | parameters
    try:
        network = timm.create_model(name, **settings)
    except Exception as error:  # timm raises whatever its many constructors do
        raise InputError(f"timm cannot make {name!r} with {settings}: {error}") from error
    default = cast("dict[str, Any]", network.default_cfg)
    if parameters.get("pretrained") and not required.weights and default["num_classes"] != settings["num_classes"]:
        # timm would leave the last layer random.
        raise InputError(required.refusal(f"timm:{name},pretrained=true", default["num_classes"]))
    normalisation = _of_channels(required, tuple(default["mean"]), tuple(default["std"]))
    trained = bool(parameters.get("pretrained") or parameters.get("checkpoint_path"))
    return Net(network, required.num_classes, *normalisation, trained=trained)


def python_model(required: Requirements, address: str, **parameters: Any) -> Classifier:
    """`python:MODULE:CALLABLE`, a network of your own; the callable gets the parameters.

    Args:
        required: what it must fit; `num_classes` is passed to a callable that has such a parameter.
        address: such as acme.nets:make; it returns a Classifier, or a module for which mean is 0 and std is 1.
        parameters: for the callable.
    """
    module_name, attribute = Spec.parse_address(address)
    try:
        make = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"Expected python:MODULE:CALLABLE, but {address!r} cannot be imported: {error}. Put PYTHONPATH=. before "
            "the command to find a module in the current folder."
        ) from error
    if "num_classes" in inspect.signature(make).parameters:
        parameters = {"num_classes": required.num_classes} | parameters
    try:
        network = make(**parameters)
    except Exception as error:  # it may fail in any way
        frames = traceback.extract_tb(error.__traceback__)
        raise InputError(
            f"The function of python:{address} failed: {type(error).__name__}: {error} "
            f"({Path(frames[-1].filename).name}:{frames[-1].lineno})"
        ) from error
    if not isinstance(network, nn.Module):
        raise InputError(f"Expected a torch module from {address}, but got {type(network).__name__}.")
    return network if isinstance(network, Classifier) else Net(network, required.num_classes)


MODELS: dict[str, Callable[..., Classifier]] = {
    "photos-cnn": photos_cnn,
    "mnist-cnn": mnist_cnn,
    "resnet20": resnet20,
    "torchvision": torchvision_model,
    "timm": timm_model,
    "hf": huggingface_model,
    "robustbench": robustbench_model,
    "python": python_model,
}
"""Name -> the function that makes it from `Requirements` and parameters; `bench list` shows its first line."""


def _of_channels(
    required: Requirements, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The normalisation of colour images, averaged for grey ones."""
    if required.channels == len(mean):
        return tuple(mean), tuple(std)
    return (sum(mean) / len(mean),), (sum(std) / len(std),)
