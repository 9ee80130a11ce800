"""The answers of a defended model with the gradient of a substitute: BPDA for a whole classifier (arXiv 1802.00420)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.contracts import Classifier, Images, Logits, Streams, Wrapped

Substitute = Callable[[Images, Streams, Logits], Logits]
"""Images, streams and the defended model's logits for them -> logits to differentiate instead, of the same shape."""


class SubstituteGradient(Wrapped):
    """A defended model whose gradient is that of a substitute.

    An attack on the substitute itself stops where the substitute is fooled, and prefers what the substitute prefers.
    Here it stops at a true success and compares true margins; only its direction comes from the substitute.
    """

    def __init__(self, defended: Classifier, substitute: Substitute) -> None:
        super().__init__(defended)
        self.substitute = substitute

    def forward(self, images: Images, rng: Streams) -> Logits:
        """The defended model's logits, bit for bit."""
        with torch.no_grad():
            logits = self.model(images.detach(), rng)
        if not (torch.is_grad_enabled() and images.requires_grad):
            return logits
        followed = self.substitute(images, rng, logits)
        return logits + (followed - followed.detach())


def mean_of(log_probabilities: Float[Tensor, "n m k"], counted: Bool[Tensor, "n m"]) -> Float[Tensor, "n k"]:
    """For each image the mean over those of its m variants that are counted, or over all if none is.

    It takes log probabilities, since a variant that is sure of its class has next to no gradient of its probability.
    """
    weights = (counted | ~counted.any(1, keepdim=True)).to(log_probabilities.dtype)
    return (log_probabilities * (weights / weights.sum(1, keepdim=True))[..., None]).sum(1)
