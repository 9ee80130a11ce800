"""Turns networks for images into networks for volumes, with convolutions along the depth and logits for each slice.

Convolutions get a third axis; everything else (normalisation, activation, pooling, the linear head) works on each
slice alone, and the depth is neither strided nor pooled. So the slices of a volume pass through the network as a batch
of small images, 3D convolutions mix neighbours in the stack, and batch norm over that batch equals batch norm over the
volumes. Ghebrechristos and Alaghband (2024), section 3.2.

Kernels of depth 1, 3 or Z are made from the 2D weights w: w in the middle and 0 elsewhere ("central": at first the same
network on each slice), or w / depth everywhere ("mean", I3D, arXiv 1705.07750: the same if all slices are equal).

Slices are small. If a window is larger than its map, a convolution pads the map, and a pooling layer reduces it by
its stride.
"""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional as F

from bench.contracts import Classifier, InputError, Streams

from ._volume import Volume

Maps = Float[Tensor, "slices features h w"]
Smaller = Float[Tensor, "slices new_features new_h new_w"]
SliceLogits = Float[Tensor, "n z k"]
Inflation = Literal["central", "mean"]
_POOLS = {F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d}


class VolumeNet(nn.Module):
    """Volumes -> logits of each of their slices."""

    def __init__(self, classifier: Classifier, slices: int) -> None:
        super().__init__()
        self.classifier, self.slices = classifier, slices

    def forward(self, volume: Volume, rng: Streams) -> SliceLogits:
        """Logits of shape (n, slices, k)."""
        rows = volume.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        places = torch.arange(len(rows), device=rows.device)
        logits: Tensor = self.classifier(rows, rng[places // self.slices].derive(places % self.slices))
        return logits.reshape(len(volume), self.slices, *logits.shape[1:])


def inflate(
    classifier: Classifier, volume: tuple[int, int, int], depth: int, inflation: Inflation = "central"
) -> VolumeNet:
    """A copy of an image classifier that reads volumes.

    Args:
        classifier: its convolutions must be layers (nn.Conv2d).
        volume: channels, number of slices, side of a slice.
        depth: depth of the kernels, at least 1.
        inflation: how kernels are initialised.

    Raises:
        InputError: it has no such convolutions, or cannot read slices of this size.
    """
    channels, slices, side = volume
    if not any(isinstance(layer, nn.Conv2d) for layer in classifier.modules()):
        raise InputError("Expected a network with 2D convolutions (nn.Conv2d), but this one has none.")
    reasons = []
    for prepared in (copy.deepcopy, _layered):
        try:
            inflated = VolumeNet(_converted(prepared(classifier), slices, depth, inflation), slices)
            _try(inflated, volume)
        except InputError:
            raise
        except Exception as error:  # anyone's network may fail in any way
            reasons.append(f"{type(error).__name__}: {error}".split("\n")[0])
        else:
            return inflated
    raise InputError(
        f"Expected a convolutional network for slices of {channels}×{side}×{side}, but cannot turn this one into a "
        f"network for volumes of {slices} slices ({'; '.join(dict.fromkeys(reasons))}). Choose larger slices, or a "
        "network with global pooling before its linear layers."
    )


class _Convolution(nn.Conv3d):
    """A convolution over the slices of a volume, which come as a batch, and over their neighbours in the stack."""

    def __init__(self, flat: nn.Conv2d, slices: int, depth: int, inflation: Inflation) -> None:
        if type(flat) is not nn.Conv2d or isinstance(flat.padding, str) or flat.padding_mode != "zeros":
            raise InputError(f"Expected 2D convolutions with a fixed padding of zeros, but got {flat}.")
        window, step, gap = _both(flat.kernel_size), _both(flat.stride), _both(flat.dilation)
        around = (depth - 1) // 2, *_both(flat.padding)
        super().__init__(
            flat.in_channels, flat.out_channels, (depth, *window), (1, *step), around, (1, *gap), flat.groups,
            device="meta",
        )  # fmt: skip
        self.slices = slices
        self.weight = nn.Parameter(_inflated(flat.weight, depth, inflation), flat.weight.requires_grad)
        self.bias = flat.bias

    def forward(self, maps: Maps) -> Smaller:
        """The maps of the same slices."""
        missing = [*self._missing(maps, 1), *self._missing(maps, 0), 0, 1 - self.kernel_size[0] % 2]
        volumes = maps.reshape(len(maps) // self.slices, self.slices, *maps.shape[1:]).transpose(1, 2)
        if any(missing):
            volumes = F.pad(volumes, missing)
        return super().forward(volumes).transpose(1, 2).flatten(0, 1)

    def _missing(self, maps: Maps, axis: int) -> tuple[int, int]:
        """Padding before and after, so that the window fits and ⌈side / stride⌉ places result."""
        side, step = maps.shape[2 + axis], self.stride[1 + axis]
        window = self.dilation[1 + axis] * (self.kernel_size[1 + axis] - 1) + 1
        padded = side + 2 * int(self.padding[1 + axis])
        if padded >= window:
            return 0, 0
        missing = (math.ceil(side / step) - 1) * step + window - padded
        return missing // 2, missing - missing // 2


class _Pool(nn.Module):
    """A pooling layer that also reads maps smaller than its window."""

    def __init__(self, pool: nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, maps: Maps) -> Smaller:
        """As the layer, or adaptive pooling by its stride."""
        (height, width), (down, right) = maps.shape[2:], _both(self.pool.stride)
        (tall, wide), (above, left) = _both(self.pool.kernel_size), _both(self.pool.padding)
        if height + 2 * above >= tall and width + 2 * left >= wide:
            return self.pool(maps)  # type: ignore[no-any-return]  # nn.Module
        smaller = math.ceil(height / down), math.ceil(width / right)
        if isinstance(self.pool, nn.MaxPool2d):
            return F.adaptive_max_pool2d(maps, smaller)
        return F.adaptive_avg_pool2d(maps, smaller)


def _both(sides: int | str | tuple[int, ...]) -> tuple[int, int]:
    """Height and width, given as one number or as two."""
    down, right = (sides, sides) if isinstance(sides, int) else map(int, sides)
    return down, right


def _inflated(weight: Tensor, depth: int, inflation: Inflation) -> Float[Tensor, "outputs inputs depth h w"]:
    copies = weight.detach()[:, :, None].repeat(1, 1, depth, 1, 1)
    if inflation == "mean":
        return copies / depth
    middle = torch.arange(depth, device=weight.device) == (depth - 1) // 2
    return copies * middle[:, None, None]


def _converted(classifier: Classifier, slices: int, depth: int, inflation: Inflation) -> Classifier:
    """The same classifier, now with 3D convolutions and with pools for small maps."""
    for name, layer in list(classifier.named_modules()):
        if isinstance(layer, nn.Conv2d):
            classifier.set_submodule(name, _Convolution(layer, slices, depth, inflation))
        elif isinstance(layer, nn.MaxPool2d | nn.AvgPool2d):
            classifier.set_submodule(name, _Pool(layer))
    return classifier


class _Layers(fx.Tracer):
    """Traces down to modules without children, which keep their behaviour in training and evaluation."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return not list(module.children())


def _layered(classifier: Classifier) -> Classifier:
    """A copy with pooling functions replaced by layers, and without heads that are only used in training.

    Inception has both. The classifier itself is not traced, since it takes streams.
    """
    classifier = copy.deepcopy(classifier).eval()
    for name, network in [(name, child) for name, child in classifier.named_children() if list(child.children())]:
        graph = _Layers().trace(network)
        traced = fx.GraphModule(network, graph)
        for node in list(graph.nodes):
            if node.op == "call_function" and node.target in _POOLS:
                traced.add_submodule(node.name, _POOLS[node.target](*node.args[1:], **node.kwargs))
                with graph.inserting_after(node):
                    node.replace_all_uses_with(graph.call_module(node.name, node.args[:1]))
                graph.erase_node(node)
        traced.delete_all_unused_submodules()
        traced.recompile()
        classifier.set_submodule(name, traced)
    return classifier


def _try(network: VolumeNet, volume: tuple[int, int, int]) -> None:
    """Raises unless the network, in training mode, returns logits for each slice; nothing is computed."""
    channels, slices, side = volume
    copied = copy.deepcopy(network).to("meta").train()
    rng = Streams.of(0, torch.arange(2, device="meta"))
    logits = copied(torch.zeros(2, channels, slices, side, side, device="meta"), rng)
    if logits.shape[:2] != (2, slices) or logits.ndim != 3:
        raise ValueError(f"its output has shape {tuple(logits.shape)}")
