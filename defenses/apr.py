"""Adaptive Pixel Resilience: attention on pixels, one-pixel adversarial training and flat gradients.

Paper 002 ("Adaptive Pixel Resilience", IJRASET 2024), section IV:

    A(x) = σ(W_a * x + b_a)            one value in (0, 1) for each pixel
    y    = f(A(x) ⊙ x)
    loss = α · CE(y(x), c) + (1 − α) · CE(y(x'), c) + β · ‖∇_x y(x)‖²

with x' a one-pixel attack on the present weights, α = 0.7, β = 0.01. Each part can be switched off, as in its Table 3.

The paper leaves open, and here is: W_a a 3×3 convolution to one channel; at first W_a = 0 and b_a = 2, so that the
training begins near the identity (A = 0.88). Its training attack, differential evolution with 400 × 100 queries for
each image and step, contradicts its own 27 % of additional time; `greedy` asks one gradient and tries the pixels and
corners of the colour cube that it promises most of, `random` tries random ones, and `de` is an evolution of 20 × 3.
‖∇_x y‖² is the squared Frobenius norm of the Jacobian, estimated without bias by one random projection, on a random
half of each batch, which halves its cost. It is that of the probabilities, in [0, 1] like the paper's confidences, and
its x is a standardised image, as networks see it, whose unit is about 0.225 of ours. Squared gradients of logits with
respect to pixels in [0, 1] are some 10⁴ on a trained ResNet-20 and leave, at β = 0.01, nothing of the cross-entropy:
31 % of CIFAR-10 were still right for 87 %. `penalty` takes those of the logits, or of the cross-entropy, instead.

The attack and the penalty see the network in evaluation mode and leave it as it was; clean and attacked images then go
through in one batch. Everything has an exact gradient.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Images, Labels, Logits, Streams
from bench.training import Batch

from ._examples import unpacked
from ._one_pixel import Search, one_pixel
from ._ranges import within
from ._training import Trained, cross_entropies, evaluating

UNIT = 0.225
"""What is 1 in a standardised image, as a share of the range of a pixel: a usual standard deviation of photographs."""


class Attended(Classifier):
    """A classifier that sees each pixel as bright as an attention map says."""

    def __init__(self, model: Classifier, channels: int) -> None:
        super().__init__()
        self.model = model
        self.num_classes, self.rejects, self.passes = model.num_classes, model.rejects, model.passes
        self.random = model.random
        self.kernel = nn.Parameter(torch.zeros(1, channels, 3, 3))
        self.offset = nn.Parameter(torch.full((1,), 2.0))

    def attention(self, images: Images) -> Float[Tensor, "n 1 h w"]:
        """A(x), in (0, 1)."""
        return torch.sigmoid(F.conv2d(images.to(self.kernel.dtype), self.kernel, self.offset, padding=1))

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of the attended images."""
        return self.model(images * self.attention(images).to(images.dtype), rng)  # type: ignore[no-any-return]  # nn.Module


@dataclass(frozen=True)
class APR(Trained):
    """Adaptive Pixel Resilience: pixel-wise attention, one-pixel adversarial training, flat gradients.

    Attributes:
        attention: whether pixels are weighed.
        adversarial: whether it learns from attacked images, too.
        regularisation: β, for standardised images, at least 0.
        clean_share: α, the weight of the clean images, in [0, 1].
        attack: how the pixel and its colour are found in training.
        candidates: how many pixels with a colour `greedy` and `random` try, at least 1.
        penalty: whose squared gradient is kept small: that of all probabilities, of all logits, or of the loss.
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

    def beginning(self, model: Classifier, images: Images, rng: Streams) -> Classifier:
        """The bare architecture, behind its attention."""
        network = super().beginning(model, images, rng)
        return Attended(network, images.shape[1]).to(images.device) if self.attention else network

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The trained network, behind its attention."""
        if not self.attention:
            return super().protect(model, learned)
        channels = learned["net.kernel"].shape[1]
        return unpacked(lambda: Attended(copy.deepcopy(model), channels), learned)

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The three terms; clean and attacked images go through in one batch."""
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
        """The mean over the images of the squared gradient of what `penalty` says."""
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
