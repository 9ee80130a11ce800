"""Names -> classifiers, normalisation inside."""

from __future__ import annotations

import ast
import hashlib
import inspect
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.contracts import Classifier, Streams
from bench.core.tensor_cache import checksum
from bench.errors import InputError
from bench.models.nets import Net
from bench.models.zoo import MODELS, Wanted
from bench.plugins.source_code import belongs_to, fingerprint_of
from bench.plugins.specs import Spec, build, check_known, parse_value
from bench.training import private_randomness
from bench.weights_file import load_weights

__all__ = ["MODELS", "Net", "load_model", "model_fingerprint", "python_module", "weights_fingerprint"]

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
    check_known(spec.name, MODELS, "model")
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
    """Changes if a weight, the normalisation or a name does; 12 hex digits of SHA-256."""
    return checksum(model.state_dict())[:12]


def python_module(text: str) -> str | None:
    """The module whose code makes a model such as `python:acme.nets:make`; None for other models."""
    spec = Spec.parse(text)
    return Spec.parse_address(spec.first or "")[0] if spec.name == "python" else None


def model_fingerprint(text: str, model: nn.Module) -> str:
    """As `weights_fingerprint`; of a model that Python code makes, it changes with that code, too."""
    weights, module_name = weights_fingerprint(model), python_module(text)
    if module_name is None:
        return weights
    others = {type(part).__module__ for part in model.modules()}
    code = fingerprint_of([module_name, *(name for name in others if belongs_to(name, module_name))])
    return hashlib.sha256(f"{weights} {code}".encode()).hexdigest()[:12]


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
    return (
        None
        if text is None
        else cast("tuple[float, ...]", parse_value(text, tuple[float, ...], f"{what} of the model"))
    )


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
        raise InputError(wanted.refusal(str(spec), answers))
