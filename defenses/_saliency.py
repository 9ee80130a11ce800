"""Which pixels a classifier's answer hangs on: gradients, guided or averaged over noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bench.contracts import Classifier, Images, Logits, Streams

Way = Literal["guided", "gradient", "smoothgrad"]
DRAWS, NOISE = 8, 0.1
"""How many noisy copies SmoothGrad averages, and their standard deviation (values are in [0, 1])."""


def saliency(model: Classifier, images: Images, rng: Streams, way: Way) -> tuple[Float[Tensor, "n h w"], Logits]:
    """|∂ logit of the predicted class / ∂ pixel|, the largest over the channels, and the logits; no graph is kept.

    `guided` lets only positive gradients back through every ReLU (Springenberg et al., arXiv 1412.6806), whether it
    is a module or a function; `smoothgrad` averages over noise (arXiv 1706.03825) and costs as many passes.
    """
    if way == "guided":
        with _Guided():
            gradient, logits = _gradient(model, images, rng)
        return gradient.abs().amax(1), logits
    gradient, logits = _gradient(model, images, rng)
    if way == "smoothgrad":
        classes, noise = logits.argmax(1), rng.derive("smoothgrad")
        noisy = [images + NOISE * noise.normal(*images.shape[1:]).to(images) for _ in range(DRAWS)]
        gradient = sum((_gradient(model, one, rng, classes)[0] for one in noisy), torch.zeros_like(images))
    return gradient.abs().amax(1), logits


def _gradient(model: Classifier, images: Images, rng: Streams, classes: Tensor | None = None) -> tuple[Images, Logits]:
    with torch.enable_grad():
        watched = images.detach().requires_grad_()
        logits = model(watched, rng)
        chosen = logits.argmax(1) if classes is None else classes
        (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), watched)
    return gradient, logits.detach()


class _Guided(TorchFunctionMode):
    """While it is entered, only positive gradients pass back through any ReLU (or ReLU6) of any network."""

    RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu6)

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self._rectifies(func, args, kwargs or {}) and out.requires_grad:
            out.register_hook(lambda gradient: gradient.clamp_min(0))
        return out

    @classmethod
    def _rectifies(cls, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        if func is not F.hardtanh:
            return func in cls.RELUS
        # What a ReLU6 is made of; torch names its limits here even where the network does not.
        limits = dict(zip(("min_val", "max_val"), args[1:3], strict=False)) | dict(kwargs)
        return limits.get("min_val") == 0 and limits.get("max_val") == 6
