"""Smoothed vision transformer: de-randomized smoothing whose bands of columns are classified by a ViT.

Salman, Jain, Wong, Mądry, "Certified Patch Robustness via Smoothed Vision Transformers" (CVPR 2022, arXiv 2110.07719):

    the image is black outside a band of `size` columns (which wraps around), enlarged, and cut into tokens;
    tokens without any pixel of the band are dropped; the ViT's best class is the band's vote;
    answer and certificate as in de-randomized smoothing, with a band at every `stride`-th column

The certificate looks at how the bands that a patch affects vote, so it certifies no less than the paper's fixed gap
between the votes. Departures: the same number of tokens is kept for every band, so that they fit into one batch; if a
band needs fewer, some all-black tokens are kept too. Normalisation is timm's for the architecture.

`weights` are what the paper starts from and this defense is made for: a ViT pre-trained on many images and fine-tuned
on bands. They are loaded in timm's format, and nothing is trained. Without weights, a fresh ViT is trained on the
training images; with a few thousand of them, it is far worse than a convolutional network.

The votes have no gradient. An adaptive attacker watches them and follows the mean log probability of the bands that
still vote for the answer: those that have changed their vote need no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Artifact, Images, InputError, Labels, Logits, MissingExtraError, NotApplicableError, Streams
from bench.training import private_randomness
from bench.weights_file import load_weights

from ._ablation import Ablations, Parts, Voted
from ._examples import seed_of
from ._ranges import within

TOKEN = 16
"""Side of a token in pixels."""

LARGEST = 1024
"""The largest side in pixels to which images are enlarged."""


@dataclass(frozen=True)
class SmoothedViT(Voted):
    """Smoothed ViT: bands of columns, classified by a vision transformer, vote; certified against patches.

    Attributes:
        weights: a file with the transformer's weights; without one, it is trained.
        architecture: a vision transformer of timm.
        side: side in pixels to which images are enlarged, a multiple of theirs and of 16; None for the smallest one
            that is at least 64.
        size: width of a band in pixels of the image; None for an eighth of the image.
        stride: distance between bands, in pixels of the image.
        threshold: θ, the probability from which a band votes for a class, in (0, 1]; None for its best class.
        epochs: how often it sees each training image; 0 with weights.
    """

    weights: str = ""
    architecture: str = "deit_tiny_patch16_224"
    side: int | None = None
    size: int | None = None
    stride: int = 1
    threshold: float | None = None
    training_images: int = 4000
    epochs: int = 10

    title = "Smoothed ViT"
    paper = "Salman et al. 2022, arXiv 2110.07719"
    note = "without weights=FILE the transformer is trained from scratch on few images"
    learning_rate = 5e-4
    presets = {
        "quick": {"epochs": 2, "stride": 4},
        "paper": {"side": 224, "architecture": "deit_small_patch16_224", "training_images": 50_000, "epochs": 30},
        "imagenet": {"side": 224, "architecture": "deit_small_patch16_224", "size": 19, "stride": 10},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if find_spec("timm") is None:
            raise MissingExtraError("smoothed-vit", "timm")
        within("a size in pixels", self.size, 1, math.inf, "omit it for an eighth of the image")
        within("a stride in pixels", self.stride, 1, math.inf, "1 is the default")
        within("a side in pixels", self.side, 16, 4096, "omit it for the default")
        if self.weights:
            object.__setattr__(self, "epochs", 0)

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError if side or size do not fit the image, NotApplicableError if no side does."""
        _, height, width = image_shape
        side = self._side(height)
        if height != width or side > LARGEST:
            raise NotApplicableError(f"smoothed-vit cannot enlarge {height}×{width} images to a square of its tokens.")
        if side % height or side % TOKEN:
            raise InputError(f"Expected a side that {height} and {TOKEN} divide, but got {side}.")
        if self.size is not None and self.size >= width:
            raise InputError(f"Expected a band narrower than the image ({width}), but got size {self.size}.")

    def fixed(self, shape: tuple[int, int, int], rng: Streams) -> Artifact:
        """Height and width of the image, width of a band, and side of the enlarged image."""
        _, height, width = shape
        return {"bands": torch.tensor([height, width, self.size or math.ceil(width / 8), self._side(height)])}

    def ablations(self, learned: Artifact) -> Bands:
        """A band at every `stride`-th column."""
        height, width, size, _ = learned["bands"].tolist()
        return Bands(height, width, size, self.stride)

    def network(self, known: Artifact, num_classes: int) -> BandViT:
        """The transformer, which drops black tokens."""
        _, width, size, side = known["bands"].tolist()
        return BandViT(self._transformer(int(known["channels"]), num_classes, side), side, size * side // width)

    def initial_network(self, known: Artifact, num_classes: int, rng: Streams) -> nn.Module:
        """The transformer with the weights of the file, or with its own initial ones."""
        with private_randomness(seed_of(rng.derive("weights"))):
            net = self.network(known, num_classes)
        if self.weights:
            load_weights(net.vit, Path(self.weights))
        return net.to(rng.device)

    def _side(self, height: int) -> int:
        """The side of the enlarged image."""
        fitting = math.lcm(height, TOKEN)
        return self.side or fitting * math.ceil(64 / fitting)

    def _transformer(self, channels: int, num_classes: int, side: int) -> Any:
        import timm
        from timm.models.vision_transformer import VisionTransformer

        try:
            net = timm.create_model(self.architecture, img_size=side, in_chans=channels, num_classes=num_classes)
        except Exception as error:  # timm's many constructors may raise anything
            raise InputError(f"timm cannot build {self.architecture!r} for a side of {side}: {error}") from error
        if not isinstance(net, VisionTransformer) or net.patch_embed.patch_size != (TOKEN, TOKEN):
            raise InputError(
                f"Expected a plain vision transformer of timm with tokens of {TOKEN} pixels, such as "
                f"deit_tiny_patch16_224, but got {self.architecture!r}."
            )
        return net


class Bands(Ablations):
    """A band of columns at every `stride`-th column, wrapping around; black outside, with a mask as last channel."""

    def __init__(self, height: int, width: int, size: int, stride: int) -> None:
        self.height, self.width, self.wide, self.stride = height, width, size, stride
        self.size = (height, width)
        self.count = math.ceil(width / stride)

    def apply(self, images: Images, which: Labels) -> Parts:
        """Shape (n, c + 1, h, w)."""
        columns = torch.arange(self.width, device=images.device)
        inside = (columns - which[:, None] * self.stride) % self.width < self.wide
        mask = inside[:, None, None].to(images.dtype).expand(-1, 1, self.height, -1)
        return torch.cat([images * mask, mask], 1)

    def retains(self) -> Bool[Tensor, "ablations h w"]:
        """The pixels of each band."""
        return self.apply(torch.zeros(self.count, 1, self.height, self.width), torch.arange(self.count))[:, -1].bool()


class BandViT(nn.Module):
    """Images with a mask -> logits, from the tokens that overlap the mask."""

    vit: Any  # timm has no types
    mean: Tensor
    std: Tensor

    def __init__(self, vit: Any, side: int, band: int) -> None:
        """Wraps a transformer of timm.

        Args:
            vit: a transformer for square images of `side` pixels.
            side: side of the enlarged images.
            band: number of columns of a mask in the enlarged image, which are contiguous except at the border.
        """
        super().__init__()
        self.vit, self.side = vit, side
        grid = side // TOKEN
        self.kept = grid * min(grid, (band + TOKEN - 2) // TOKEN + 1)
        for name in ("mean", "std"):
            values = torch.tensor(vit.default_cfg[name])
            values = values if len(values) == vit.patch_embed.proj.in_channels else values.mean(0, keepdim=True)
            self.register_buffer(name, values[:, None, None])

    def forward(self, masked_images: Parts) -> Logits:
        """Logits of shape (n, num_classes)."""
        larger = F.interpolate(masked_images, (self.side, self.side), mode="nearest")
        tokens = self.vit.patch_embed((larger[:, :-1] - self.mean) / self.std)
        tokens = self.vit._pos_embed(tokens)
        prefix = tokens.shape[1] - (self.side // TOKEN) ** 2
        masked = F.max_pool2d(larger[:, -1:], TOKEN).flatten(1)
        which = masked.argsort(dim=1, descending=True, stable=True)[:, : self.kept]
        kept = tokens[:, prefix:].gather(1, which[..., None].expand(-1, -1, tokens.shape[2]))
        features = self.vit.blocks(self.vit.norm_pre(torch.cat([tokens[:, :prefix], kept], 1)))
        return self.vit.forward_head(self.vit.norm(features))  # type: ignore[no-any-return]  # timm has no types
