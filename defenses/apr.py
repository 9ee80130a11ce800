"""Adaptive Pixel Resilience: attention on pixels, one-pixel adversarial training and flat gradients.

Paper 002 ("Adaptive Pixel Resilience", IJRASET 2024), section IV:

    A(x) = σ(W_a * x + b_a)            one value in (0, 1) for each pixel
    y    = f(A(x) ⊙ x)
    loss = α · CE(y(x), c) + (1 − α) · CE(y(x'), c) + β · ‖∇_x y(x)‖²

with x' a one-pixel attack on the current weights, α = 0.7, β = 0.01. Each part can be turned off, as in its Table 3.

What the paper leaves open, and our choice: W_a is a 3×3 convolution to one channel, initially W_a = 0 and b_a = 2, so
that training starts near the identity (A = 0.88). The paper's training attack, differential evolution with 400 × 100
queries per image and step, contradicts its own 27 % of extra time. `greedy` takes one gradient and tries the pixels and
corners of the colour cube with the best gain to first order, `random` tries random ones, and `de` is an evolution of
20 × 3. ‖∇_x y‖² is the squared Frobenius norm of the Jacobian, estimated without bias by one random projection, on a
random half of each batch to halve the cost. It is the Jacobian of the probabilities, which are in [0, 1] like the
paper's confidences, with respect to standardised images, as networks see them, whose unit is about 0.225 of ours.
Squared gradients of logits with respect to pixels in [0, 1] are about 10⁴ on a trained ResNet-20 and, at β = 0.01,
drown the cross-entropy: accuracy on CIFAR-10 drops from 87 to 31 %. `penalty` can use those of the logits, or of the
cross-entropy, instead.

The attack and the penalty run on the network in evaluation mode and do not change it; clean and attacked images then
pass through in one batch. Everything has an exact gradient.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Images, Labels, Logits, Streams, Wrapped
from bench.training import Batch

from ._examples import unpacked
from ._one_pixel import Search, one_pixel
from ._ranges import within
from ._training import Trained, cross_entropies, evaluating

UNIT = 0.225
"""The unit of standardised images in units of ours: a typical standard deviation of photographs."""


class Attended(Wrapped):
    """A classifier that sees each pixel scaled by an attention map."""

    def __init__(self, model: Classifier, channels: int) -> None:
        super().__init__(model)
        self.kernel = nn.Parameter(torch.zeros(1, channels, 3, 3))
        self.offset = nn.Parameter(torch.full((1,), 2.0))

    def attention(self, images: Images) -> Float[Tensor, "n 1 h w"]:
        """A(x), in (0, 1)."""
        return torch.sigmoid(F.conv2d(images.to(self.kernel.dtype), self.kernel, self.offset, padding=1))

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of the scaled images."""
        return self.model(images * self.attention(images).to(images.dtype), rng)


@dataclass(frozen=True)
class APR(Trained):
    """Adaptive Pixel Resilience: pixel-wise attention, one-pixel adversarial training, flat gradients.

    Attributes:
        attention: whether pixels are scaled by an attention map.
        adversarial: whether to train on attacked images too.
        regularisation: β, for standardised images, at least 0.
        clean_share: α, the weight of the clean images, in [0, 1].
        attack: how training searches for the pixel and its colour.
        candidates: number of pairs of pixel and colour that `greedy` and `random` try, at least 1.
        penalty: whose squared gradient is penalised: that of all probabilities, of all logits, or of the loss.
    """

    attention: bool = True
    adversarial: bool = True
    regularisation: float = 0.01
    clean_share: float = 0.7
    attack: Search = "greedy"
    candidates: int = 2
    penalty: Literal["probabilities", "logits", "loss"] = "probabilities"

    title = "APR"
    paper = "Adaptive Pixel Resilience, IJRASET 2024"
    tuned_on = ("pixel",)
    presets = {
        "quick": {"epochs": 2},
        "paper": {"start": "scratch", "epochs": 200, "training_images": 50_000, "candidates": 64, "shift": 4},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        within("a regularisation", self.regularisation, 0, 1e6, "0.01 is the paper's")
        within("a share of clean images", self.clean_share, 0, 1, "0.7 is the paper's")
        within("candidates", self.candidates, 1, 1e6, "2 is the default")

    def initial_network(self, model: Classifier, images: Images, rng: Streams) -> Classifier:
        """The bare architecture behind its attention map."""
        network = super().initial_network(model, images, rng)
        return Attended(network, images.shape[1]).to(images.device) if self.attention else network

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The trained network behind its attention map."""
        if not self.attention:
            return super().protect(model, learned)
        channels = learned["net.kernel"].shape[1]
        return unpacked(lambda: Attended(copy.deepcopy(model), channels), learned)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The three terms; clean and attacked images pass through in one batch."""
        clean, labels, rng = batch.images, batch.targets, batch.rng
        if self.adversarial:
            attacked = one_pixel(network, clean, labels, rng, self.attack, self.candidates)
            loss = cross_entropies(network, clean, attacked, labels, rng, self.clean_share)
        else:
            loss = F.cross_entropy(network(clean, rng), labels)
        if not self.regularisation:
            return loss
        half = slice(len(clean) // 2, None)
        steepness = self.steepness(network, clean[half], labels[half], rng[half])
        return loss + self.regularisation * UNIT**2 * steepness

    def steepness(self, network: nn.Module, images: Images, labels: Labels, rng: Streams) -> Tensor:
        """The mean over the images of the squared gradient that `penalty` names."""
        images = images.detach().requires_grad_()
        with evaluating(network):
            logits = network(images, rng)
        if self.penalty == "loss":
            value = F.cross_entropy(logits, labels, reduction="sum")
        else:
            outputs = logits.softmax(1) if self.penalty == "probabilities" else logits
            value = (outputs * rng.derive("projection").normal(logits.shape[1]).to(logits.dtype)).sum()
        (gradient,) = torch.autograd.grad(value, images, create_graph=True)
        return gradient.square().flatten(1).sum(1).mean()
