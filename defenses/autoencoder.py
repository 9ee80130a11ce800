"""Autoencoder: a small network with skip connections repairs each image before the classifier sees it.

Himbitski, Varashevich, Kovalev 2024 (paper 003, section V and Table III). With the encoder's levels E₁ … E₄, each at
half the resolution of the one before (32, 64, 128, 256 channels):

    h = E₄ + Linear(E₄)                    at each place, over channels
    D₃ = LeakyReLU(convᵀ(h)) + E₃,   D₂ = … + E₂,   D₁ = … + E₁,      x̂ = min(ReLU(convᵀ(D₁)), 1)
    loss = ‖x̂ − x‖² + `weight` · CE(f(x̂), y),                         f frozen

It learns from clean images and as many attacked by FGSM on f; the target is the clean image for both.

What the paper leaves open, and our choice: 4×4 convolutions; LeakyReLU with slope 0.01; skips that add, which keeps the
shapes of its table; the linear layer over channels at each place (a dense one over all places would have 2.5 billion
weights); AdamW; the mean squared error, with a weight of 0.03 for the classification (with 1, the output soon stops
looking like an image). The network starts as the identity, which is close to the solution. Sides that are not
multiples of 16 are padded by repeating the border and cropped again. Training omits the last clamp, which would stop
gradients.

A larger eps costs clean accuracy, since the perturbations then look like detail: on `photos`, after four epochs with
2,000 images, 97 % are classified correctly with the paper's eps of 0.01, and 82 % with 8/255.

The paper attacks the classifier alone. An adaptive attacker differentiates through the autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Examples, Images, Streams, Transformed
from bench.training import Batch, private_randomness

from ._ascent import ascend
from ._examples import packed, seed_of, unpacked
from ._pixels import bounded
from ._ranges import within
from ._training import Recipe

WIDTHS = (32, 64, 128, 256)


class Repairer(nn.Module):
    """Images -> repaired images of the same shape, in [0, 1]; the network of paper 003's Table III."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, *WIDTHS)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.hidden = nn.Linear(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 4, 2, 1) for a, b in reversed(list(pairwise(widths))))
        self._begin_as_identity(channels)

    @torch.no_grad()
    def _begin_as_identity(self, channels: int) -> None:
        """The first level stores each 2×2 block in four channels, the last restores it, and all others add nothing."""
        first, last = (self.get_parameter(f"{name}.weight") for name in ("down.0", "up.3"))
        for name in ("down.0.bias", "up.2.weight", "up.2.bias", "up.3.weight", "up.3.bias"):
            self.get_parameter(name).zero_()
        place = torch.arange(4 * channels)
        channel, row, column = place // 4, 1 + place // 2 % 2, 1 + place % 2
        first[place] = 0
        first[place, channel, row, column] = 1
        last[place, channel, row, column] = 1

    def forward(self, images: Images) -> Images:
        """The repaired images."""
        return bounded(self.unbounded(images))

    def unbounded(self, images: Images) -> Images:
        """The repaired images before the clamp to [0, 1], shape (n, c, h, w), for training."""
        height, width = images.shape[2:]
        features: Tensor = F.pad(images, (0, -width % 16, 0, -height % 16), mode="replicate")
        levels = []
        for place, layer in enumerate(self.down):
            features = layer(features)
            features = F.leaky_relu(features) if place else features
            levels.append(features)
        features = features + self.hidden(features.movedim(1, -1)).movedim(-1, 1)
        for layer, level in zip(self.up, levels[-2::-1], strict=False):
            features = F.leaky_relu(layer(features)) + level
        repaired: Tensor = self.up[-1](features)
        return repaired[..., :height, :width]


@dataclass(frozen=True)
class Autoencoder(Recipe):
    """Autoencoder: a small network repairs each image before the classifier sees it.

    Attributes:
        eps: how far FGSM moves each value of the attacked training images, in [0, 1].
        weight: weight of the classification loss relative to the reconstruction loss, at least 0.
    """

    epochs: int = 4
    batch_size: int = 32
    eps: float = 0.01
    weight: float = 0.03

    title = "Autoencoder"
    paper = "Himbitski et al. 2024"
    tuned_on = ("linf",)
    presets = {"quick": {"epochs": 2}, "paper": {"eps": 0.01, "epochs": 100, "training_images": 50_000}}

    def __post_init__(self) -> None:
        super().__post_init__()
        within("eps", self.eps, 0, 1, "0.01 is the default")
        within("a weight of the classification", self.weight, 0, 1e6, "0.03 is the default")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The autoencoder's weights; the classifier does not change."""
        images, labels, streams = self.examples(training, rng)
        with private_randomness(seed_of(streams.derive("weights"))):
            net = Repairer(images.shape[1]).to(images.device)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            return self.loss(net, model, batch)

        self.train(net, images, labels, training, streams, loss=loss)
        return packed(net)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind the autoencoder."""
        channels = learned["net.down.0.weight"].shape[1]
        net = unpacked(lambda: Repairer(channels), learned)
        dtype = learned["net.down.0.weight"].dtype
        defended = Transformed(model, lambda images, rng: net(images.to(dtype)).to(images.dtype))
        defended.repairer = net  # a submodule, so that it moves between devices with the model
        return defended

    def loss(self, net: Repairer, model: Classifier, batch: Batch) -> Tensor:
        """Reconstruction and classification loss, over as many clean as attacked images."""
        clean, labels, rng = batch.images, batch.targets, batch.rng
        attacked = ascend(model, clean, labels, rng, eps=self.eps, steps=1, step_size=self.eps)
        twice = torch.arange(len(clean), device=clean.device).repeat(2)
        repaired = net.unbounded(torch.cat([clean, attacked]))
        reconstruction = F.mse_loss(repaired, clean[twice])
        return reconstruction + self.weight * F.cross_entropy(model(repaired, rng[twice]), labels[twice])
