"""Models and images in memory, as the engine takes them; whatever is wrong with them is said before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bench.contracts import Classifier, Images, InputError, Labels, Streams, answers
from bench.core.identity import identity_of
from bench.core.tensor_cache import checksum
from bench.data.dataset import Dataset, Split
from bench.models import Net, logits_of, weights_fingerprint
from bench.records.command import IN_MEMORY

AnyModel = nn.Module | Callable[[Tensor], Any]
"""Images, float32 NCHW in [0, 1] (or normalised, with mean and std) -> logits, or an object or dict with `logits`."""

_PROBES = 4
"""Images whose answers tell apart models that have the same weights, or none."""


class Function(nn.Module):
    """A function that is no module."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.training = False

    def forward(self, images: Tensor) -> Any:
        """What the function returns."""
        return self.function(images)


def classifier_of(
    model: AnyModel, images: Images, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Classifier:
    """The model as the engine takes it, in evaluation mode; asked about a few of the images first.

    Args:
        model: a module or a function; it stays on its device and as it is.
        images: on which it will work.
        mean, std: normalisation of images in [0, 1] in front of it; by default it normalises them itself.

    Raises:
        InputError: it is in training mode, or it does not answer each image with finite logits.
    """
    if isinstance(model, nn.Module):
        check_evaluation_mode(model)
        if isinstance(model, Classifier):
            if mean is not None or std is not None:
                raise InputError("A finished Classifier normalises its images itself; leave out mean and std.")
            _ask(lambda few: model(few, _streams(few)), images, model.num_classes + model.rejects)
            return model
    elif not callable(model):
        raise InputError(f"Expected a torch module or a function as model, but got {type(model).__name__}.")
    network = model if isinstance(model, nn.Module) else Function(model)
    shift, scale = (0.0,) if mean is None else mean, (1.0,) if std is None else std
    net = Net(network, 0, tuple(map(float, shift)), tuple(map(float, scale))).eval()
    net.mean, net.std = net.mean.to(images.device), net.std.to(images.device)
    net.num_classes = _ask(lambda few: network((few - net.mean) / net.std), images, None)
    return net


def check_evaluation_mode(model: nn.Module) -> None:
    """Raises InputError if a part of the model is in training mode."""
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    if training:
        raise InputError(
            f"Expected a model in evaluation mode, but {training[0]} is in training mode. Call model.eval()."
        )


def _streams(images: Images) -> Streams:
    return Streams.of(0, torch.arange(len(images), device=images.device))


def _ask(answer: Callable[[Images], Any], images: Images, columns: int | None) -> int:
    """The number of logits of each of two images."""
    few = images[:2]
    shape = "×".join(map(str, few.shape[1:]))
    try:
        with torch.no_grad():
            logits = logits_of(answer(few))
    except Exception as error:  # a network may fail in any way
        raise InputError(f"The model cannot read images of {shape}: {type(error).__name__}: {error}") from error
    if logits.ndim != 2 or len(logits) != len(few) or not logits.is_floating_point():
        came = f"{tuple(logits.shape)} {logits.dtype}"
        raise InputError(f"Expected logits of shape ({len(few)}, classes) for {len(few)} images, but got {came}.")
    if columns not in (None, logits.shape[1]) or logits.shape[1] < 2:
        raise InputError(f"Expected logits of {columns or 'two or more'} classes, but got {logits.shape[1]}.")
    if not bool(logits.isfinite().all()):
        raise InputError("Expected finite logits from the model, but got NaN or infinity for the first images.")
    if bool((logits >= 0).all()) and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0]), atol=1e-4):
        raise InputError(
            "Expected logits, but the answers are probabilities, which hide gradients from an attacker. Leave out the "
            "softmax at the model's end."
        )
    return logits.shape[1]


def check_gradients(model: Classifier, images: Images, attacks: Sequence[str]) -> None:
    """Raises InputError if torch cannot differentiate the model, which these attacks need."""
    leaf = images[:1].clone().requires_grad_()
    try:
        with torch.enable_grad():
            logits = model(leaf, _streams(leaf))
            torch.autograd.grad(logits.logsumexp(1).sum(), leaf)
    except RuntimeError as error:
        raise InputError(
            f"Expected a model that torch can differentiate, as {', '.join(attacks)} must, but got: {error} A function "
            "that leaves torch or works under no_grad can be attacked by what needs scores only, such as sparse-rs."
        ) from error


def device_of(model: AnyModel, images: Tensor) -> torch.device:
    """Where a module's weights are; where the images are, if it has none."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return tensors[0].device if tensors else images.device


def checked_images(images: Any, what: str = "images") -> Images:
    """The images, detached; raises InputError unless they are float32 of shape (n, c, h, w) in [0, 1]."""
    if not isinstance(images, Tensor):
        raise InputError(f"Expected {what} as a tensor, but got {type(images).__name__}. Use torch.as_tensor({what}).")
    advice = ""
    if images.dtype == torch.uint8:
        advice = f" Use {what}.float() / 255."
    elif images.dtype != torch.float32:
        advice = f" Use {what}.float()."
    elif images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        advice = f" Use {what}.permute(0, 3, 1, 2)."
    elif images.ndim != 4 or not images.numel():
        advice = " There must be at least one image, and a single one is images[None]."
    if advice:
        raise InputError(
            f"Expected {what} as float32 of shape (n, channels, height, width), but got {images.dtype} of shape "
            f"{tuple(images.shape)}.{advice}"
        )
    low, high = float(images.min()), float(images.max())
    if not 0 <= low <= high <= 1:
        raise InputError(
            f"Expected {what} with values in [0, 1], but got values from {low:.4g} to {high:.4g}. Undo a normalisation "
            "and pass its mean= and std=; divide values up to 255 by 255."
        )
    return images.detach()


def checked_labels(labels: Any, images: Images, classes: int | None = None, what: str = "labels") -> Labels:
    """The labels as int64; raises InputError unless there is a class of the model for each image."""
    if not isinstance(labels, Tensor) or labels.dtype.is_floating_point or labels.dtype == torch.bool:
        came = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise InputError(f"Expected {what} as a tensor of whole numbers, but got {came}.")
    if labels.shape != (len(images),):
        raise InputError(
            f"Expected one of {what} for each of {len(images)} images, shape ({len(images)},), but got shape "
            f"{tuple(labels.shape)}."
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        raise InputError(
            f"Expected {what} from 0 to {classes - 1 if classes else '…'}, the classes of the model, but got {low} to "
            f"{high}."
        )
    return labels.detach().to(torch.int64)


def dataset_of(
    images: Images,
    labels: Labels,
    training: tuple[Images, Labels] | None,
    classes: Sequence[str],
    name: str = "images",
) -> Dataset:
    """Images in memory as a data set; all of them checked before.

    Raises:
        InputError: training images have another shape, or one of them is also evaluated on.
    """
    learned, learned_labels = training or (images[:0], labels[:0])
    if learned.shape[1:] != images.shape[1:]:
        raise InputError(
            f"Expected training images of shape {tuple(images.shape[1:])}, as the others are, but got "
            f"{tuple(learned.shape[1:])}."
        )
    train, test = _split(learned, learned_labels), _split(images, labels)
    evaluated = {hash(image.numpy().tobytes()) for image in images.cpu()}
    copies = sum(hash(image.numpy().tobytes()) in evaluated for image in learned.cpu())
    if copies:
        raise InputError(f"Expected training images that are not evaluated on, but {copies} of them are.")
    content = f"{train.fingerprint} {test.fingerprint} {classes}"
    identity = identity_of(Path(name), hashlib.sha256(content.encode()).hexdigest(), name)
    return Dataset(f"{IN_MEMORY}{identity}", tuple(classes), train, test)


def _split(images: Images, labels: Labels) -> Split:
    images, labels = images.cpu(), labels.cpu()
    return Split(labels, lambda indices: images[indices], lambda: checksum({"images": images, "labels": labels})[:12])


def model_name(model: AnyModel, classifier: Classifier, images: Images, name: str | None = None) -> str:
    """What records call a model in memory: it changes with its weights, its layers and its answers.

    Args:
        model: what the user passed.
        classifier: the same as the engine takes it.
        images: for their shape and device.
        name: what to call it; by default the name of its class or function.
    """
    rng = torch.Generator().manual_seed(0)
    probes: Float[Tensor, "4 c h w"] = torch.rand((_PROBES, *images.shape[1:]), generator=rng).to(images.device)
    logits = answers(classifier, probes, _streams(probes)).double().cpu()
    # Rounded, so that another machine gives the same model the same name.
    numbers = [f"{value:.3g}" for value in torch.cat([logits.mean(1), logits.std(1)]).tolist()]
    content = f"{weights_fingerprint(classifier)} {classifier} {numbers}"
    own = name or getattr(model, "__name__", type(model).__name__).strip("<>")
    return f"{IN_MEMORY}{identity_of(Path(own), hashlib.sha256(content.encode()).hexdigest(), own)}"


@contextmanager
def without_weight_gradients(model: nn.Module) -> Iterator[None]:
    """Within it the weights take no gradient, which saves time and memory; afterwards they are as before."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
