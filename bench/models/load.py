"""Names -> classifiers, with their normalisation inside."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bench.contracts import Classifier, Streams
from bench.core.tensor_cache import checksum
from bench.errors import InputError
from bench.models.nets import Net, logits_of
from bench.models.requirements import Requirements
from bench.models.subset import Subset, places_of, read_class_names
from bench.models.zoo import MODELS
from bench.plugins.source_code import belongs_to, fingerprint_of
from bench.plugins.specs import Spec, build, canonical, check_known, parse_value, write_value
from bench.training import private_randomness
from bench.weights_file import load_weights

__all__ = [
    "MODELS",
    "Net",
    "canonical_model",
    "load_model",
    "logits_of",
    "model_fingerprint",
    "python_module",
    "weights_fingerprint",
]

_FIRST = {"torchvision": "name", "timm": "name", "hf": "name", "robustbench": "name", "python": "address"}
"""Models whose name is followed by this parameter without its key."""
_NUMBERS_OF_ANY_MODEL = ("mean", "std")
"""Parameters that every model's text may have; and `classes`, a file."""
_REFUSED = {
    "onnx": "An ONNX model gives no gradients, which most attacks and the strongest need. Load it as a torch module "
    "(python:MODULE:FUNCTION). From Python, bench.evaluate takes any function as model, such as one that calls "
    "onnxruntime, for attacks that need scores only.",
}
"""Names of no model, and why."""


def load_model(
    text: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    class_names: Sequence[str] = (),
    weights: Path | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    seed: int = 0,
) -> Classifier:
    """The classifier that a text such as `photos-cnn` or `timm:mobilenetv2_100,pad_type=same` names.

    It is in evaluation mode and its weights take no gradient.

    Args:
        text: the name and its parameters; any model also takes mean= and std=, such as mean=0.5:0.5:0.5, and classes=,
            a file with the names of its classes, one on each line, if the data set has only some of them.
        num_classes, image_shape: of the data set; the shape is (c, h, w).
        class_names: of the data set, in its order; needed with classes=.
        weights: a file of weights (safetensors, or a state dict saved by torch), loaded into the network.
        mean, std: normalisation of images in [0, 1], for each channel or for all; by default the model's own.
        seed: of the initialisation, if there are no weights.

    Raises:
        InputError: no model has that name, a parameter is wrong, or it does not fit the images, the classes or the
            weights.
    """
    spec = _known_spec(text)
    parameters = dict(spec.parameters)
    mean = _numbers(parameters.pop("mean", None), "mean") or mean
    std = _numbers(parameters.pop("std", None), "std") or std
    file = Path(parameters.pop("classes")) if "classes" in parameters else None
    names = read_class_names(file) if file else []
    required = Requirements(len(names) or num_classes, image_shape, weights)
    with private_randomness(seed):
        model = _make(spec, parameters, required)
    if isinstance(model, Net):
        if weights is not None:
            load_weights(model.network, weights)
        own_mean, own_std = (tuple(values.flatten().tolist()) for values in (model.mean, model.std))
        trained = model.trained or weights is not None
        if file:
            _try(model.eval(), spec, required)
        network = Subset(model.network, places_of(class_names, names, file)) if file else model.network
        model = Net(network, num_classes, mean or own_mean, std or own_std, trained)
    elif weights or mean or std or file:
        raise InputError(f"{text} makes a finished classifier, which takes no weights, mean, std or classes.")
    model.eval().requires_grad_(False)
    _try(model, spec, replace(required, num_classes=num_classes))
    return model


def canonical_model(text: str) -> str:
    """The text of a model with its parameters in order and one spelling for each value.

    Raises InputError for an unknown name or parameter, or a value that cannot be read.
    """
    spec = _known_spec(text)
    shared = [
        (key, write_value(_numbers(value, key)) if key in _NUMBERS_OF_ANY_MODEL else value)
        for key, value in spec.parameters
        if key in (*_NUMBERS_OF_ANY_MODEL, "classes")
    ]
    own = tuple(pair for pair in spec.parameters if pair[0] not in dict(shared))
    spec = canonical(replace(spec, parameters=own), MODELS[spec.name], f"model {spec.name!r}")
    return str(replace(spec, parameters=tuple(sorted([*spec.parameters, *shared]))))


def _known_spec(text: str) -> Spec:
    spec = Spec.parse(text)
    if spec.name in _REFUSED:
        raise InputError(_REFUSED[spec.name])
    check_known(spec.name, MODELS, "model")
    return spec


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


def _make(spec: Spec, parameters: dict[str, str], required: Requirements) -> Classifier:
    first = _FIRST.get(spec.name)
    if bool(first) != bool(spec.first):
        raise InputError(
            f"Expected {spec.name}{f':{first.upper()}' if first else ':key=value'}, but got {str(spec)!r}."
        )
    given: dict[str, Any] = {"required": required} | ({first: spec.first} if first else {})
    return cast("Classifier", build(MODELS[spec.name], f"model {spec.name!r}", parameters, given))


def _numbers(text: str | None, what: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    return cast("tuple[float, ...]", parse_value(text, tuple[float, ...], f"{what} of the model"))


def _try(model: Classifier, spec: Spec, required: Requirements) -> None:
    """Asks the model about one image, so that what does not fit is said before any work."""
    shape = "×".join(map(str, required.image_shape))
    try:
        with torch.no_grad():
            logits = model(torch.full((1, *required.image_shape), 0.5), Streams.of(0, torch.tensor([0])))
    except Exception as error:  # a network may fail in any way
        raise InputError(f"The model {spec} cannot read images of {shape}: {type(error).__name__}: {error}") from error
    if not isinstance(logits, Tensor) or logits.shape != (1, required.num_classes):
        answers = logits.shape[-1] if isinstance(logits, Tensor) and logits.ndim == 2 else type(logits).__name__
        raise InputError(required.refusal(str(spec), answers))
