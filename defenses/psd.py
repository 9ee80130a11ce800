"""Patch selection denoiser: denoises only patches with a pixel that the denoiser would change a lot.

Chen, Xu, Han, "Patch selection denoiser: an effective approach defending against one-pixel attacks" (ICONIP 2019).
Only its abstract was available; every constant is ours.

    D = a residual network, trained only on pairs of noisy images (Noise2Noise, arXiv 1803.04189)
    a pixel is suspect if max over channels |x − D(x)| > `threshold`
    each window×window patch, `window`/2 apart, with at least `count` suspects becomes D(x)

The noise resembles a pixel attack: at a rate drawn from [0, `noise`] for each image, pixels take random colours. The
loss is |D(noisy) − noisy'|^γ, where γ falls from 2 to 1 during training: 1 suits such noise, since a pixel's clean
value is its median, but with 1 from the start, D never leaves the identity. It learns from 16×16 crops. D also sees the
image's difference from its 3×3 median, so a small network learns in minutes what takes a deep one hours.

A denoiser for 32×32 colour images comes with the package, made by `bench train --defense psd:denoiser=trained` from the
training crops of `photos`. On 200 CIFAR-10 images it restores 93 % of the pixels that were set to extreme colours; one
trained on 150 CIFAR-10 images restores 67 %.

The choice of patches has no gradient, but their new values have (view `defended`). What is replaced now may change
until it is not, so the attacker also tries the gradient of the identity (`bpda`). Of 18 CIFAR-10 images, ten pixels by
GreedyFool leave 15 by the first and 13 by the second; Sparse-RS with 150 queries leaves 13 (ResNet-20).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Defense, Examples, Images, Streams, Transformed
from bench.training import Batch
from bench.weights_file import shipped_weights

from ._examples import choose, fresh, packed, train, unpacked
from ._pixels import bounded, straight_through
from ._ranges import within
from .median import median

FIRST_POWER, LAST_POWER = 2.0, 1.0
"""γ at the start and the end of training."""

CROP = 16
"""Side in pixels of the training crops."""

SHIPPED = (3, 32, 32), 5, 32
"""Shape of the images, depth and width of the denoiser in `bench/weights`."""

_DENOISER = shipped_weights("psd-denoiser")


class Denoiser(nn.Module):
    """Images -> denoised images: 3×3 convolutions and ReLU on the images and their difference from the median."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        sides = [2 * channels, *[width] * (depth - 1), channels]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 1, 1) for a, b in pairwise(sides))

    def forward(self, images: Images) -> Images:
        """The denoised images."""
        features: Tensor = torch.cat([images - 0.5, images - median(images, 3)], 1)
        for layer in self.layers[:-1]:
            features = F.relu(layer(features))
        noise: Tensor = self.layers[-1](features)
        return images - noise


@dataclass(frozen=True)
class PSD(Defense):
    """Patch selection denoiser: denoises patches with suspect pixels.

    Attributes:
        threshold: difference from the denoised value above which a pixel is suspect, in [0, 1].
        window: side of the patches in pixels, even, at least 2.
        count: number of suspects from which a patch is replaced, at least 1.
        noise: largest rate of noise in training, in (0, 0.5].
        depth: number of convolutions of the denoiser, at least 2.
        width: channels between them.
        training_images: largest number of images to learn from.
        epochs: how often each of them is seen.
        denoiser: `trained` trains one; `shipped` uses the package's own if it fits images, depth and width (then
            noise, training_images and epochs have no effect), and otherwise trains one too.
    """

    threshold: float = 0.25
    window: int = 4
    count: int = 1
    noise: float = 0.2
    depth: int = 5
    width: int = 32
    training_images: int = 1000
    epochs: int = 64
    denoiser: Literal["shipped", "trained"] = "shipped"

    title = "PSD"
    paper = "Chen et al. 2019 (after the abstract)"
    note = "built from the paper's abstract; its constants were not available"
    kind = "transform"
    presets = {
        "quick": {"denoiser": "trained", "epochs": 16},
        "paper": {"denoiser": "trained", "depth": 17, "width": 64, "training_images": 2000, "epochs": 60, "noise": 0.1},
    }

    def __post_init__(self) -> None:
        within("a threshold", self.threshold, 0, 1, "0.25 is the default")
        within("half a window in pixels", self.window / 2, 1, 64, "the window is an even number of pixels, such as 4")
        within("a count of pixels", self.count, 1, self.window**2, "1 finds single pixels")
        within("a rate of noise", self.noise, 1e-4, 0.5, "above one half, it would learn the noise")
        within("a depth", self.depth, 2, 40, "5 is the default")
        within("a width", self.width, 1, 1024, "32 is the default")
        within("a number of training images", self.training_images, 1, 1e9, "1000 is the default")
        within("a number of epochs", self.epochs, 1, 1e5, "64 is the default")
        if self.window % 2:
            raise ValueError(f"Expected an even window, but got {self.window}; patches overlap by half of it.")

    def files(self) -> tuple[Path, ...]:
        """The denoiser of the package, unless one is trained."""
        return (_DENOISER,) if self.denoiser == "shipped" else ()

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """Trains the denoiser or loads the package's own, without using the model or the labels."""
        example, _, _ = choose(training, rng, 1, "psd")
        if self.denoiser == "shipped" and (tuple(example.shape[1:]), self.depth, self.width) == SHIPPED:
            return load_file(_DENOISER, device=str(example.device))
        images, labels, streams = choose(training, rng, self.training_images, "psd")
        net = fresh(lambda: Denoiser(images.shape[1], self.width, self.depth), rng)
        settings: dict[str, Any] = {"epochs": self.epochs, "learning_rate": 3e-3, "batch_size": 32, "loss": self._loss}
        train(net, images, labels, training, streams, **settings)
        return packed(net)

    def protect(self, model: Classifier, learned: Artifact) -> Transformed:
        """The model behind the denoiser."""
        net = self._denoiser(learned)
        defended = Transformed(model, lambda images, rng: self._clean(net, images))
        defended.denoiser = net  # a submodule, so that it moves between devices with the model
        return defended

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """With the gradient of the identity, and with the exact one."""
        defended = self.protect(model, learned)

        def straight(images: Images, rng: Streams) -> Images:
            return straight_through(images, lambda values: defended.clean(values, rng))

        return {"bpda": Transformed(model, straight), "defended": defended}

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The patches that are denoised."""
        net = self._denoiser(learned)
        with torch.no_grad():
            denoised = net(images.to(next(net.parameters()).dtype)).to(images.dtype)
        return self._selected(images, denoised)[:, 0]

    def _denoiser(self, learned: Artifact) -> nn.Module:
        channels = learned["net.layers.0.weight"].shape[1] // 2
        return unpacked(lambda: Denoiser(channels, self.width, self.depth), learned)

    def _clean(self, net: nn.Module, images: Images) -> Images:
        weights = next(net.parameters())
        denoised = net(images.to(weights.dtype)).to(images.dtype)
        return bounded(torch.where(self._selected(images.detach(), denoised.detach()), denoised, images))

    def _selected(self, images: Images, denoised: Images) -> Bool[Tensor, "n 1 h w"]:
        """The pixels of all patches with enough suspects; patches extend beyond the border by up to half a window."""
        suspects = ((images - denoised).abs().amax(1, keepdim=True) > self.threshold).to(images.dtype)
        half = self.window // 2
        height, width = suspects.shape[2:]
        padded = F.pad(suspects, (half, half + width % half, half, half + height % half))
        counts = F.avg_pool2d(padded, self.window, half) * self.window**2
        chosen = F.conv_transpose2d(
            (counts > self.count - 0.5).to(images.dtype), images.new_ones(1, 1, self.window, self.window), stride=half
        )
        return chosen[..., half : half + height, half : half + width] > 0.5

    def _loss(self, net: nn.Module, batch: Batch) -> Tensor:
        """|difference|^γ, smoothed below a hundredth, so that its slope stays finite."""
        crops = _crops(batch.images, batch.rng)
        denoised, noisy = net(self._noisy(crops, batch.rng)), self._noisy(crops, batch.rng)
        power = FIRST_POWER + (LAST_POWER - FIRST_POWER) * batch.share
        loss: Tensor = ((denoised - noisy).square() + 1e-4).pow(power / 2).mean()
        return loss

    def _noisy(self, images: Images, rng: Streams) -> Images:
        """Some pixels (all of their channels) take random colours."""
        rate = rng.uniform(1, 1, 1, high=self.noise)
        hit = rng.uniform(1, *images.shape[2:]) < rate
        return torch.where(hit, rng.uniform(*images.shape[1:]), images)


def _crops(images: Images, rng: Streams) -> Float[Tensor, "n c a b"]:
    """A random crop of each image, at most 16×16."""
    height, width = (min(CROP, side) for side in images.shape[2:])
    top = rng.integers(images.shape[2] - height + 1, 1) + torch.arange(height, device=images.device)
    left = rng.integers(images.shape[3] - width + 1, 1) + torch.arange(width, device=images.device)
    everyone = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, -1)[everyone, top[:, :, None], left[:, None, :]].movedim(-1, 1)
