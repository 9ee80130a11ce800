"""Training a network on labelled images: one loop for every classifier, reproducible under a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bench.contracts import Images, Labels

Augment = Callable[[Images, torch.Generator], Images]
"""A minibatch and a generator (on the CPU) -> the minibatch, changed at random."""


@contextmanager
def private_randomness(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Lets code that can only draw from torch's own streams (initialisation, dropout) draw from `seed`.

    Those streams are put back as they were, so nothing outside notices.
    """
    graphics = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=graphics):
        torch.default_generator.manual_seed(seed)
        for one in graphics:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


def fit(
    network: nn.Module,
    images: Images,
    labels: Labels,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    batch_size: int = 128,
    weight_decay: float = 0.05,
    augment: Augment | None = None,
    progress: Callable[[float, float], None] | None = None,
) -> None:
    """Trains `network` in place: cross-entropy, AdamW (arXiv 1711.05101), one cycle of the learning rate.

    The rate rises to `learning_rate` over a tenth of the steps and falls to zero along a cosine. Afterwards
    the network is in evaluation mode and its weights take no gradient.

    Args:
        network: images -> logits, on the device of `images`.
        images: shape (n, c, h, w), in [0, 1]; may be larger than what the network reads if `augment` crops.
        labels: shape (n,).
        epochs: how often every image is seen.
        learning_rate: the highest rate.
        seed: of order, augmentation and dropout.
        batch_size: images a step.
        weight_decay: of AdamW, on weights and not on biases or batch norms.
        augment: changes each minibatch at random.
        progress: told the share of epochs done and the mean loss of the last one.
    """
    network.requires_grad_(True).train()
    steps = epochs * -(-len(images) // batch_size)
    optimiser = torch.optim.AdamW(_groups(network, weight_decay), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps + 1, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    with private_randomness(seed, images.device):
        for epoch in range(epochs):
            total = torch.zeros((), device=images.device)
            order = torch.randperm(len(images), generator=generator).to(images.device)
            for rows in torch.split(order, batch_size):
                batch = images[rows] if augment is None else augment(images[rows], generator)
                loss = F.cross_entropy(network(batch), labels[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
                optimiser.step()
                schedule.step()
                total += loss.detach() * len(rows)
            if progress:
                progress((epoch + 1) / epochs, float(total) / len(images))
    network.eval().requires_grad_(False)


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Matrices and kernels decay; vectors (biases, batch norms) do not."""
    weights = [one for one in network.parameters() if one.ndim > 1]
    vectors = [one for one in network.parameters() if one.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def scaled_crops(
    images: Images,
    generator: torch.Generator,
    *,
    size: int,
    zoom: tuple[float, float] = (0.7, 1.4),
    light: float = 0.1,
) -> Float[Tensor, "n c size size"]:
    """Random crops of `size` pixels, mirrored by chance, at a random scale and in a different light.

    Args:
        images: shape (n, c, h, w), in [0, 1], square and larger than `size`.
        generator: on the CPU.
        size: side of the result in pixels.
        zoom: bounds of how many pixels of the image make one of the result (log-uniform, at most the image).
        light: bounds of the changes: contrast and brightness by a factor up to 1 ± light, an offset up to ± light/4.

    Returns:
        shape (n, c, size, size), in [0, 1].
    """
    count, channels, side, _ = images.shape

    def between(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(count, *shape, generator=generator)).to(images.device)

    low, high = zoom
    share = (low * (high / low) ** between(0, 1) * size / side).clamp(max=1)
    mirror = between(0, 1).round() * 2 - 1
    transform = torch.zeros(count, 2, 3, device=images.device)
    transform[:, 0, 0], transform[:, 1, 1] = share * mirror, share
    transform[:, :, 2] = between(-1, 1, 2) * (1 - share)[:, None]
    grid = F.affine_grid(transform, [count, channels, size, size], align_corners=False)
    crops = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    mean = crops.mean((1, 2, 3), keepdim=True)
    contrast, brightness = between(1 - light, 1 + light, 2, 1, 1, 1).unbind(1)
    offset = between(-light / 4, light / 4, 1, 1, 1)
    return (((crops - mean) * contrast + mean) * brightness + offset).clamp(0, 1)
