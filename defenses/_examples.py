"""Chooses training images for defenses that learn; builds, trains and stores their networks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bench.contracts import Artifact, Examples, Images, InputError, Labels, Streams
from bench.training import fit

Network = TypeVar("Network", bound=nn.Module)


def choose(training: Examples, rng: Streams, count: int, what: str) -> tuple[Images, Labels, Streams]:
    """At most `count` training images, chosen by their streams, on the device of the streams.

    Raises InputError if there are none.
    """
    if not len(training.labels):
        raise InputError(f"{what} needs training images, but the data set has none. For a folder, give train=FRACTION.")
    rows = rng.derive("chosen").uniform().argsort(stable=True)[:count]
    here = rows.to(training.labels.device)
    return training.load(here).to(rng.device), training.labels[here].to(rng.device), rng[rows]


def conv_net(inputs: int, outputs: int, strides: tuple[int, ...], widths: tuple[int, ...]) -> nn.Sequential:
    """3×3 convolutions with batch norm and ReLU, global average pooling, one linear layer; for any image size."""
    layers: list[nn.Module] = []
    for width, stride in zip(widths, strides, strict=True):
        layers += [nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))


def fresh(make: Callable[[], nn.Module], rng: Streams) -> nn.Module:
    """A network with initial weights from `rng` (He et al., arXiv 1502.01852), not from torch's global generator."""
    with torch.device("meta"):
        net = make()
    net.to_empty(device=rng.device)
    source = rng[:1].derive("weights")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.weight.fill_(1)
                module.bias.zero_()
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.copy_(source.normal(*module.weight.shape)[0] * math.sqrt(2 / fan_in))
                if module.bias is not None:
                    module.bias.zero_()
    return net


def train(
    net: nn.Module,
    images: Images,
    targets: Tensor,
    training: Examples,
    rng: Streams,
    *,
    during: tuple[float, float] = (0.0, 1.0),
    **settings: Any,
) -> int:
    """Trains `net` in place by `bench.training.fit`, with a seed from `rng`, progress and a checkpoint.

    Args:
        net: the network.
        images, targets: as for `fit`.
        training: where progress is reported and the checkpoint is kept.
        rng: different for each network that a defense trains.
        during: begin and end of this training, as shares of all that the defense learns.
        settings: further arguments for `fit`.

    Returns:
        The number of epochs that the weights have been trained for.
    """
    begin, end = during
    seed = seed_of(rng)
    return fit(
        net,
        images,
        targets,
        seed=seed,
        progress=lambda share, loss: training.progress(begin + (end - begin) * share),
        checkpoint=training.checkpoint / f"{seed:08x}.pt" if training.checkpoint else None,
        **settings,
    )


def seed_of(rng: Streams) -> int:
    """A seed below 2³² for code that does not take streams."""
    return int(rng[:1].derive("seed").integers(2**32, 1))


def packed(net: nn.Module) -> Artifact:
    """The weights of a network as part of an artifact."""
    return {f"net.{name}": value.clone().contiguous() for name, value in net.state_dict().items()}


def unpacked(make: Callable[[], Network], learned: Artifact) -> Network:
    """The network with the weights that `packed` stored, in evaluation mode."""
    with torch.device("meta"):
        net = make()
    weights = {name.removeprefix("net."): value for name, value in learned.items() if name.startswith("net.")}
    net.load_state_dict(weights, assign=True)
    return net.eval().requires_grad_(False)
