"""The bare model made faster, once for all cells: batch norms folded, channels last, and bfloat16 if it is asked for.

A copy takes the model's place only where its answers and gradients are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.contracts import (
    Classifier,
    Defense,
    Images,
    InputError,
    Logits,
    Plugin,
    Streams,
    Transform,
    Wrapped,
    answers,
)
from bench.models import Net
from bench.records.schema import Precision

LOGITS = 1e-4
"""The largest difference of a logit from the model's own."""
GRADIENTS = 1e-2
"""The largest difference of an image's gradient, as a share of its length."""
PROBED = 8
"""How many gradients are compared."""


def prepare(bare: Classifier, images: Images, rng: Streams) -> Classifier:
    """A faster copy of a model, or the model itself where there is none that gives the same answers.

    Args:
        bare: a model in evaluation mode.
        images: on which the answers are compared; gradients on the first few.
        rng: the streams of the images.
    """
    if type(bare) is not Net:  # a subclass may have more than its answers, such as a rejection
        return bare
    mean, std = (tuple(values.flatten().tolist()) for values in (bare.mean, bare.std))
    try:
        network = _folded(bare.network, (images[:1] - bare.mean) / bare.std).to(memory_format=torch.channels_last)
        copy = Net(_ChannelsLast(network), bare.num_classes, mean, std, bare.trained).to(images.device)
        copy.eval().requires_grad_(False)
        return copy if _same(bare, copy, images, rng) else bare
    except Exception:  # a stranger's network may fail in any way without its layers
        return bare


def _folded(network: nn.Module, images: Images) -> nn.Module:
    """A copy whose batch norms are part of the convolutions that they follow."""
    copy, made = deepcopy(network), list[tuple[nn.Conv2d, Tensor]]()
    pairs = dict[nn.BatchNorm2d, nn.Conv2d]()

    def convolved(layer: nn.Module, given: object, output: Tensor) -> None:
        made.append((cast("nn.Conv2d", layer), output))

    def normalising(layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        pairs.update({cast("nn.BatchNorm2d", layer): conv for conv, output in made if output is given[0]})

    convolutions = [part for part in copy.modules() if isinstance(part, nn.Conv2d)]
    norms = [part for part in copy.modules() if type(part) is nn.BatchNorm2d]
    hooks = [conv.register_forward_hook(convolved) for conv in convolutions]
    hooks += [norm.register_forward_pre_hook(normalising) for norm in norms]
    with torch.no_grad():
        copy(images)
    for hook in hooks:
        hook.remove()
    for norm, conv in pairs.items():
        fused = fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = fused.weight, fused.bias
    for parent in list(copy.modules()):
        for name, child in parent.named_children():
            if child in pairs:
                setattr(parent, name, nn.Identity())
    return copy


def _same(bare: Classifier, copy: Classifier, images: Images, rng: Streams) -> bool:
    distance = (answers(bare, images, rng) - answers(copy, images, rng)).abs().max()
    own, other = (_gradient(model, images[:PROBED], rng[:PROBED]).flatten(1) for model in (bare, copy))
    return bool(distance <= LOGITS) and bool(((own - other).norm(dim=1) <= GRADIENTS * own.norm(dim=1)).all())


def _gradient(model: Classifier, images: Images, rng: Streams) -> Tensor:
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(model(leaf, rng).logsumexp(1).sum(), leaf)[0]


class _ChannelsLast(nn.Module):
    """A network that gets its images in the layout of its weights; gradients come back in the images' own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images) -> Logits:
        logits: Tensor = self.network(_ToChannelsLast.apply(images))
        return logits


class _ToChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, images: Images) -> Images:
        return images.contiguous(memory_format=torch.channels_last)

    @staticmethod
    def backward(context: Any, gradient: Images) -> Images:
        return gradient.contiguous()


class InBfloat16(Wrapped):
    """A classifier whose matrix products and convolutions are computed in bfloat16; its logits are float32."""

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits like those of the model, to two or three digits."""
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.model(images, rng).float()


def only_calls(defense: Plugin) -> bool:
    """Whether a defense works with a copy of the model: transforms and their chains do, others may need its layers."""
    parts = defense.components() or (defense,)
    return all(isinstance(part, Transform) or (isinstance(part, Defense) and part.kind == "none") for part in parts)


def check_precision(precision: Precision, device: str) -> None:
    """Raises InputError where the device does not compute in that precision."""
    if precision == "float32":
        return
    fast = (
        torch.cuda.is_bf16_supported()
        if torch.device(device).type == "cuda"
        else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    if not fast:
        raise InputError(f"Expected a device that computes in bfloat16, but {device} does not. Leave out --precision.")


@contextmanager
def full_float32() -> Iterator[None]:
    """Within it, no product of float32 is rounded to TF32 or bfloat16; on leaving it, the settings are as before."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
