"""Training images for defenses that learn, and a network trained on them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.contracts import Artifact, Examples, Images, InputError, Labels, Streams

Batch = Callable[[Labels, Streams], tuple[Tensor, Tensor]]
"""Row numbers and their streams -> what the network sees, and what it should say."""


def choose(training: Examples, rng: Streams, count: int, what: str) -> tuple[Images, Labels, Streams]:
    """At most `count` training images, chosen by their streams, on the device of the streams.

    Raises InputError where there is none to learn from.
    """
    if not len(training.labels):
        raise InputError(
            f"{what} learns from training images, but the data set has none. For a folder, give train=FRACTION."
        )
    rows = rng.derive("chosen").uniform().argsort(stable=True)[:count]
    here = rows.to(training.labels.device)
    return training.load(here).to(rng.device), training.labels[here].to(rng.device), rng[rows]


def conv_net(inputs: int, outputs: int, strides: tuple[int, ...], widths: tuple[int, ...]) -> nn.Sequential:
    """3×3 convolutions with batch norm and ReLU, mean over all places, one linear layer. Any image size."""
    layers: list[nn.Module] = []
    for width, stride in zip(widths, strides, strict=True):
        layers += [nn.Conv2d(inputs, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, outputs))


def fresh(make: Callable[[], nn.Module], rng: Streams) -> nn.Module:
    """A network with weights from `rng` (He et al., arXiv 1502.01852) and none from torch's global generator."""
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


def fit(
    net: nn.Module,
    batch: Batch,
    loss: Callable[[Tensor, Tensor], Tensor],
    rng: Streams,
    epochs: int,
    progress: Callable[[float], None],
    learning_rate: float = 3e-3,
    batch_size: int = 64,
) -> None:
    """Trains `net` in place with AdamW and a cosine; afterwards it is in evaluation mode and takes no gradient.

    Args:
        net: what is trained.
        batch: makes a minibatch; called anew in each epoch, with fresh streams.
        loss: outputs, targets -> one number.
        rng: one stream for each training image.
        epochs: how often each image is seen.
        progress: told the share done.
        learning_rate: at the start; it falls to 0.
        batch_size: images a step.
    """
    steps = epochs * math.ceil(len(rng) / batch_size)
    optimizer = torch.optim.AdamW(net.parameters(), learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    net.train()
    with torch.enable_grad():
        for epoch in range(epochs):
            progress(epoch / epochs)
            drawn = rng.derive("epoch").derive(epoch)
            for rows in torch.split(drawn.uniform().argsort(stable=True), batch_size):
                seen, wanted = batch(rows, drawn[rows].derive("batch"))
                optimizer.zero_grad()
                loss(net(seen), wanted).backward()  # type: ignore[no-untyped-call]  # torch has no types here
                optimizer.step()
                schedule.step()
    net.eval().requires_grad_(False)


def packed(net: nn.Module) -> Artifact:
    """The weights of a network, as part of an artifact."""
    return {f"net.{name}": value.clone().contiguous() for name, value in net.state_dict().items()}


def unpacked(make: Callable[[], nn.Module], learned: Artifact) -> nn.Module:
    """The network whose weights `packed` put there, in evaluation mode."""
    with torch.device("meta"):
        net = make()
    weights = {name.removeprefix("net."): value for name, value in learned.items() if name.startswith("net.")}
    net.load_state_dict(weights, assign=True)
    return net.eval().requires_grad_(False)
