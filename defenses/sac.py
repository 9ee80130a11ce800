r"""Segment and complete: a small network finds the patch, its shape is completed to squares, and it is removed.

Liu, Levine, Lau, Chellappa, Feizi, "Segment and Complete: Defending Object Detectors against Adversarial Patch Attacks
with Robust Patch Detection" (CVPR 2022, arXiv 2112.04532).

    M = {pixels that the segmenter S, a U-Net, takes for a patch}
    C = union of the s×s squares Q with |Q \ M| + |M \ Q| ≤ tolerance · s², over all sides s up to that of `area`
    x' = x with C (M where no square fits) removed

S learns by the binary cross-entropy from training images with a square at a random place, of a random size up to
`area`. Half of the squares are made by gradient ascent against the bare network, as in the paper; the others hold
random colours in blocks of random size, so that S does not only know this network's patches.

Departures: the paper defends detectors and then also trains S on attacks against S itself, which we leave out; it
blackens the patch, where we inpaint it (`fill=black` is the paper's); its tolerance grows until a square fits.

The attacker gets the true answer with two gradients: through the segmenter's probability (`soft`, which looks for
patches that S does not see), and with the removed region as it is (`bpda`). On 40 CIFAR-10 images against ResNet-20,
LaVAN of 5 % through `soft` leaves none right; made on the bare network, it leaves 93 %. Without training on attacks
against itself, S is no obstacle to an attacker who knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Defense, Examples, Images, Labels, Streams, Transformed
from bench.memory import in_pieces, piece_of
from bench.training import Batch

from ._ascent import ascend
from ._examples import choose, fresh, packed, train, unpacked
from ._inpaint import inpaint
from ._pixels import refuse_nan
from ._ranges import within
from ._squares import squares

Masks = Bool[Tensor, "n 1 h w"]
GREY = 0.5


@dataclass(frozen=True)
class SAC(Defense):
    """Segment and complete: a small network finds the patch, which is completed to squares and removed.

    Attributes:
        area: the largest patch to defend against, as a share of the image, in (0, 1].
        tolerance: how many pixels a square and the segmented region may differ by, as a share of the square, in [0, 1].
        fill: what replaces the patch: `inpaint` fills it from its surroundings.
        steps: of the gradient ascent that makes patches to learn from, at least 1.
        width: channels of the segmenter's first layer, at least 1.
        training_images: the largest number of images to learn from, at least 2.
        epochs: how often it sees each of them.
    """

    area: float = 0.1
    tolerance: float = 0.3
    fill: Literal["inpaint", "black"] = "inpaint"
    steps: int = 10
    width: int = 16
    training_images: int = 1000
    epochs: int = 20

    title = "SAC"
    paper = "Liu et al. 2022, arXiv 2112.04532"
    note = "without the segmenter's training on attacks against itself"
    kind = "transform"
    tuned_on = ("patch",)
    presets = {"quick": {"epochs": 8, "training_images": 300}, "paper": {"fill": "black", "steps": 200, "epochs": 100}}

    def __post_init__(self) -> None:
        within("an area as a share of the image", self.area, 1e-6, 1, "0.1 is the default")
        within("a tolerance as a share of a square", self.tolerance, 0, 1, "0.3 is the default")
        within("steps", self.steps, 1, 10_000, "10 is the default")
        within("a width", self.width, 1, 1024, "16 is the default")
        within("training_images", self.training_images, 2, 1e9, "1000 is the default")
        within("epochs", self.epochs, 1, 1e5, "20 is the default")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The segmenter's weights."""
        images, labels, streams = choose(training, rng, self.training_images, self.title)
        patched = self._patched(model, images, labels, streams)
        pairs = torch.cat([patched, (patched != images).any(1, keepdim=True).to(images.dtype)], 1)
        net = fresh(lambda: Segmenter(images.shape[1], self.width), streams)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            mirrored = batch.rng.derive("flip").uniform()[:, None, None, None] < 0.5
            both = torch.where(mirrored, batch.images.flip(3), batch.images)
            return F.binary_cross_entropy_with_logits(network(both[:, :-1]), both[:, -1:])

        train(net, pairs, labels, training, streams, epochs=self.epochs, learning_rate=3e-3, batch_size=32, loss=loss)
        return packed(net)

    def _patched(self, model: Classifier, images: Images, labels: Labels, rng: Streams) -> Images:
        """Every image with a square: adversarial for half of them, random colours for the others; a few have none."""
        height, width = images.shape[2:]
        shares = self.area * rng.derive("size").uniform(low=0.1, high=1.0)
        blocks = 1 + rng.derive("blocks").integers(4)
        kinds = rng.derive("kind").uniform()

        def work(part: slice) -> Tensor:
            streams = rng[part]
            rows = range(part.start, min(part.stop, len(images)))
            places = [squares(images[i : i + 1], rng[i : i + 1].derive("place"), float(shares[i])) for i in rows]
            mask = torch.cat(places)
            attacked = ascend(
                model, images[part], labels[part], streams, eps=1, steps=self.steps, step_size=0.1,
                random_start=True, mask=mask,
            )  # fmt: skip
            colours = streams.derive("colours").uniform(images.shape[1], height, width).to(images)
            coarse = [_blocks(colour, int(block)) for colour, block in zip(colours, blocks[part], strict=True)]
            kind = kinds[part, None, None, None]
            content = torch.where(kind < 0.5, attacked, torch.stack(coarse))
            return torch.where(mask & (kind < 0.9), content, images[part])

        return in_pieces(work, len(images), piece_of(images.shape))

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind the removal."""
        return self._behind(model, learned, "hard")

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The true answer, with a gradient through the segmenter's probability, and with that of the identity."""
        return {"soft": self._behind(model, learned, "soft"), "bpda": self._behind(model, learned, "bpda")}

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The completed region."""
        with torch.no_grad():
            return self.completed(_logits(self._segmenter(learned), images) > 0)[:, 0]

    def completed(self, masks: Masks) -> Masks:
        """The union of the squares that nearly equal the mask; the mask itself where none does."""
        values = masks.to(torch.float32)
        total = values.sum((1, 2, 3), keepdim=True)
        union = torch.zeros_like(values)
        largest = max(1, round((self.area * values[0, 0].numel()) ** 0.5)) if len(values) else 1
        for side in range(2, min(largest, *values.shape[2:]) + 1):
            shared = F.avg_pool2d(values, side, 1) * side**2
            fits = side**2 + total - 2 * shared <= self.tolerance * side**2 + 1e-3
            union = union.maximum(F.max_pool2d(F.pad(fits.to(values), [side - 1] * 4), side, 1))
        found = union.flatten(1).any(1)[:, None, None, None]
        return torch.where(found, union > 0, masks)

    def _segmenter(self, learned: Artifact) -> Segmenter:
        channels = learned["net.down.0.weight"].shape[1]
        return unpacked(lambda: Segmenter(channels, self.width), learned)

    def _behind(self, model: Classifier, learned: Artifact, gradient: Literal["hard", "soft", "bpda"]) -> Classifier:
        net = self._segmenter(learned)

        def clean(images: Images, rng: Streams) -> Images:
            refuse_nan(images, "sac")
            if not len(images):
                return images
            logits = _logits(net, images if gradient == "soft" else images.detach())
            masks = self.completed(logits.detach() > 0)
            removed = images.masked_fill(masks, 0) if self.fill == "black" else inpaint(images, masks)
            if gradient == "hard":
                return removed
            share = logits.sigmoid() if gradient == "soft" else 0
            smooth = images * (1 - share) + GREY * share
            return removed.detach() + (smooth - smooth.detach())

        defended = Transformed(model, clean)
        defended.segmenter = net  # a submodule, so that it moves between devices with the model
        return defended


class Segmenter(nn.Module):
    """Images -> a logit for each pixel: a U-Net with two scales below the image's own."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = _convolutions(channels, width)
        self.middle = _convolutions(width, 2 * width)
        self.lowest = _convolutions(2 * width, 4 * width)
        self.up = _convolutions(6 * width, 2 * width)
        self.top = _convolutions(3 * width, width)
        self.answer = nn.Conv2d(width, 1, 1)

    def forward(self, images: Images) -> Float[Tensor, "n 1 h w"]:
        """Logits of images of any size from 4×4 on."""
        fine = self.down(images)
        half = self.middle(F.max_pool2d(fine, 2, ceil_mode=True))
        quarter = self.lowest(F.max_pool2d(half, 2, ceil_mode=True))
        half = self.up(torch.cat([half, F.interpolate(quarter, half.shape[2:])], 1))
        logits: Tensor = self.answer(self.top(torch.cat([fine, F.interpolate(half, fine.shape[2:])], 1)))
        return logits


def _logits(net: Segmenter, images: Images) -> Float[Tensor, "n 1 h w"]:
    """The segmenter's logits, for images of any type."""
    logits: Tensor = net(images.to(net.answer.weight.dtype)).to(images.dtype)
    return logits


def _convolutions(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def _blocks(colours: Float[Tensor, "c h w"], side: int) -> Float[Tensor, "c h w"]:
    """The colours in blocks of so many pixels."""
    rows, columns = (torch.arange(length, device=colours.device) // side for length in colours.shape[1:])
    return colours[:, rows][:, :, columns]
