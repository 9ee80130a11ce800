"""Saliency: which pixels a classifier's answer depends on, by plain, guided or averaged gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bench.contracts import Classifier, Images, Labels, Logits, Streams

from ._passes import logit_gradient

SaliencyMethod = Literal["guided", "gradient", "smoothgrad"]
DRAWS, NOISE = 8, 0.1
"""Number of noisy copies that SmoothGrad averages over, and the standard deviation of their noise."""


def saliency(
    model: Classifier, images: Images, rng: Streams, method: SaliencyMethod, classes: Labels | None = None
) -> tuple[Float[Tensor, "n h w"], Logits]:
    """|∂ logit / ∂ pixel|, the largest over the channels, and the logits; no graph is kept.

    The logit is that of the given classes, by default of the predicted ones.

    `guided` passes only positive gradients back through every ReLU (Springenberg et al., arXiv 1412.6806), be it a
    module or a function; `smoothgrad` averages over noise (arXiv 1706.03825), with one pass per noisy copy.
    """
    with _Guided() if method == "guided" else nullcontext():
        gradient, logits = logit_gradient(model, images, rng, classes)
    if method == "smoothgrad":
        classes, noise = logits.argmax(1) if classes is None else classes, rng.derive("smoothgrad")
        noisy = [images + NOISE * noise.normal(*images.shape[1:]).to(images) for _ in range(DRAWS)]
        gradient = sum((logit_gradient(model, copy, rng, classes)[0] for copy in noisy), torch.zeros_like(images))
    return gradient.abs().amax(1), logits


class _Guided(TorchFunctionMode):
    """Within this context, only positive gradients pass back through any ReLU or ReLU6."""

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
        # ReLU6 is a hardtanh; torch passes its limits even if the network does not.
        limits = dict(zip(("min_val", "max_val"), args[1:3], strict=False)) | dict(kwargs)
        return limits.get("min_val") == 0 and limits.get("max_val") == 6
