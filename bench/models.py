"""Names -> classifiers, normalisation inside."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.contracts import Classifier, Images, Logits, Streams
from bench.errors import InputError, MissingExtraError
from bench.nets import MnistCNN, ResNet20, SmallResNet
from bench.registry import Spec, build, lookup, read
from bench.training import private_randomness
from bench.weights_file import load_weights

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BUNDLED = Path(__file__).parent / "weights"


class Net(Classifier):
    """A network behind its normalisation.

    Attributes:
        network: normalised images -> logits.
        mean, std: for each channel, of images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, num_classes: int, mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)
    ) -> None:
        """Wraps `network`.

        Args:
            network: normalised images -> logits of shape (n, num_classes).
            num_classes: how many classes there are.
            mean, std: one number for each channel, or one for all.

        Raises:
            InputError: mean or std is no list of finite numbers, or a std is not above zero.
        """
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise InputError(f"Expected finite mean= and positive std=, but got {mean} and {std}.")

    def forward(self, images: Images, rng: Streams | None = None) -> Logits:
        """Logits of shape (n, num_classes); draws no random numbers."""
        return cast("Tensor", self.network((images - self.mean) / self.std))


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


def photos_cnn(wanted: Wanted, trained: bool = True) -> Net:
    """A small residual net trained on the crops of `photos` (python -m bench.train_classifier photos-cnn).

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
    """Two convolutions and two linear layers, for small images; normalised as MNIST is. Comes without weights."""
    if min(wanted.image_shape[1:]) < 6:
        raise InputError(f"Expected images of 6×6 pixels or more for mnist-cnn, but got {wanted.image_shape[1:]}.")
    return Net(MnistCNN(wanted.num_classes, wanted.image_shape), wanted.num_classes, (0.1307,), (0.3081,))


def resnet20(wanted: Wanted) -> Net:
    """ResNet-20 for CIFAR, normalised as ImageNet is. Comes without weights."""
    return Net(ResNet20(wanted.num_classes, wanted.channels), wanted.num_classes, *_of_channels(wanted, *_IMAGENET))


def torchvision_model(wanted: Wanted, name: str, weights: str | None = None) -> Net:
    """A model of torchvision.

    Args:
        wanted: what it must fit.
        name: as torchvision.models.get_model knows it.
        weights: DEFAULT or another entry of its weights, which also tells the normalisation; downloaded if need be.
            None builds it for any number of classes.
    """
    import torchvision

    lookup(name, torchvision.models.list_models(module=torchvision.models), "model of torchvision")
    if weights is None:
        aux = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}  # they warn where it is left out
        network = torchvision.models.get_model(name, num_classes=wanted.num_classes, **aux)
        return Net(network, wanted.num_classes, *_IMAGENET)
    entries = torchvision.models.get_model_weights(name)
    lookup(weights, entries.__members__, f"weights of torchvision's {name}")
    entry = entries[weights]
    categories, scaling = len(entry.meta["categories"]), entry.transforms()
    if categories != wanted.num_classes:
        raise InputError(_other_classes(f"torchvision:{name},weights={weights}", categories, wanted))
    try:
        network = torchvision.models.get_model(name, weights=entry)
    except OSError as error:
        raise InputError(
            f"The weights {entry.url} cannot be downloaded ({error}). Fetch them where there is a network, and give "
            "the file as the model's weights."
        ) from error
    return Net(network, wanted.num_classes, tuple(scaling.mean), tuple(scaling.std))


def timm_model(wanted: Wanted, name: str, **parameters: Any) -> Net:
    """A model of timm, without weights unless `pretrained=true`; further parameters go to its constructor.

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
    """A model that Python code makes: `address` is MODULE:CALLABLE, called with the parameters.

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

_FIRST = {"torchvision": "name", "timm": "name", "python": "address"}


def load_model(
    text: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    weights: Path | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    seed: int = 0,
) -> Classifier:
    """The classifier that a text such as `photos-cnn` or `timm:mobilenetv2_100,pad_type=same` names.

    It is in evaluation mode and its weights take no gradient.

    Args:
        text: the name and its parameters; any model takes mean= and std= too, such as mean=0.5:0.5:0.5.
        num_classes, image_shape: of the data set; the shape is (c, h, w).
        weights: a file of weights (safetensors, or a state dict saved by torch), loaded into the network.
        mean, std: normalisation of images in [0, 1], for each channel or for all; by default the model's own.
        seed: of the initialisation, where there are no weights.

    Raises:
        InputError: there is none of that name, a parameter is wrong, or it does not fit the images, the classes
            or the weights.
    """
    spec = Spec.parse(text)
    lookup(spec.name, MODELS, "model")
    parameters = dict(spec.parameters)
    mean = _numbers(parameters.pop("mean", None), "mean") or mean
    std = _numbers(parameters.pop("std", None), "std") or std
    wanted = Wanted(num_classes, image_shape, weights)
    with private_randomness(seed):
        model = _make(spec, parameters, wanted)
    if isinstance(model, Net):
        if weights is not None:
            load_weights(model.network, weights)
        own = [tuple(one.flatten().tolist()) for one in (model.mean, model.std)]
        model = Net(model.network, num_classes, mean or own[0], std or own[1])
    elif weights or mean or std:
        raise InputError(f"{text} makes a finished classifier, which takes no weights, mean or std.")
    model.eval().requires_grad_(False)
    _try(model, spec, wanted)
    return model


def weights_fingerprint(model: nn.Module) -> str:
    """Changes when a weight, a normalisation or a name does; 12 hex digits of SHA-256."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _make(spec: Spec, parameters: dict[str, str], wanted: Wanted) -> Classifier:
    make = MODELS[spec.name]
    first = _FIRST.get(spec.name)
    if bool(first) != bool(spec.first):
        raise InputError(
            f"Expected {spec.name}{f':{first.upper()}' if first else ':key=value'}, but got {str(spec)!r}."
        )
    given: dict[str, Any] = {"wanted": wanted} | ({first: spec.first} if first else {})
    if any(one.kind is one.VAR_KEYWORD for one in inspect.signature(make).parameters.values()):
        given |= {key: _literal(value) for key, value in parameters.items()}
        parameters = {}
    return cast("Classifier", build(make, f"model {spec.name!r}", parameters, given))


def _literal(text: str) -> Any:
    """A Python value from text where it is one, else the text itself."""
    words = {"true": True, "false": False, "none": None}
    try:
        return words[text.lower()] if text.lower() in words else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _numbers(text: str | None, what: str) -> tuple[float, ...] | None:
    return None if text is None else cast("tuple[float, ...]", read(text, tuple[float, ...], f"{what} of the model"))


def _of_channels(
    wanted: Wanted, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Normalisation of colour images, averaged for grey ones."""
    if wanted.channels == len(mean):
        return tuple(mean), tuple(std)
    return (sum(mean) / len(mean),), (sum(std) / len(std),)


def _try(model: Classifier, spec: Spec, wanted: Wanted) -> None:
    """Asks the model for one answer, so that what does not fit is said now and in words."""
    shape = "×".join(map(str, wanted.image_shape))
    try:
        with torch.no_grad():
            logits = model(torch.full((1, *wanted.image_shape), 0.5), Streams.of(0, torch.tensor([0])))
    except Exception as error:  # a network of another's may fail in any way
        raise InputError(f"The model {spec} cannot read images of {shape}: {type(error).__name__}: {error}") from error
    if not isinstance(logits, Tensor) or logits.shape != (1, wanted.num_classes):
        answers = logits.shape[-1] if isinstance(logits, Tensor) and logits.ndim == 2 else type(logits).__name__
        raise InputError(_other_classes(str(spec), answers, wanted))


def _other_classes(model: str, answers: int | str, wanted: Wanted) -> str:
    return (
        f"Expected a model for the data set's {wanted.num_classes} classes, but {model} answers with {answers}. "
        "Choose a data set, a model or weights that fit."
    )
