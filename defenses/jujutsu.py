"""Jujutsu: transplants the salient region to other images; if it decides there too, it is inpainted.

Chen, Dash, Pattabiraman, "Jujutsu: A Two-stage Defense against Adversarial Patch Attacks on Deep Neural Networks"
(ASIA CCS 2023, doi 10.1145/3579856.3582816, arXiv 2108.05075).

    s = saliency of ŷ, the largest over the channels
    R = square around the largest blurred s;  h' = a clean image with x[R] at its least salient place
    suspicious  ⇔  argmax f(h'_1) = argmax f(h'_2) = ŷ
    answer      =  f(x with R filled in) where suspicious, else f(x)

So an image that keeps its class when R is filled in counts as benign. Nothing is rejected, since the second stage
corrects; there is no threshold, and thus no false-positive rate to set.

The paper's saliency is SmoothGrad (arXiv 1706.03825). On training images (ResNet-20 on CIFAR-10, LaVAN of 5 %), eight
noisy copies find 55 % of the patch and `guided` backpropagation (arXiv 1412.6806) finds 98 %, so that is the default;
the preset `paper` keeps SmoothGrad. A region that is found must still be suspected: a patch made for one image alone,
as LaVAN's are, rarely decides elsewhere, and 2 % of the images that it fools are restored either way.

Departures: the paper's radius of 51 pixels at 224 becomes a share of the shorter side; the paper fills R by a
generative network, we by OpenCV (Bertalmio et al. 2001). Noise and clean images are drawn anew for each image.

There is no end-to-end gradient. An adaptive attacker takes the region as fixed and differentiates the expected answer:
with d = mean p_ŷ(h'), the mixture (1 − d) · softmax f(x) + d · softmax f(x with R filled in), where the gradient of the
filling is the identity outside R.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Defense, Examples, Images, Labels, Logits, Streams, Wrapped, answers
from bench.memory import in_pieces, piece_of

from ._examples import choose
from ._inpaint import inpaint
from ._passes import in_passes, logit_gradient
from ._pixels import pad_mirrored, refuse_nan
from ._ranges import within
from ._saliency import saliency

GRID = 7
"""Squares of `occlusion` along each axis."""
GREY = 0.5
PASSES = {"guided": 2, "occlusion": GRID**2}
"""Passes that a saliency costs, where they do not depend on `samples`."""
Maps = Float[Tensor, "n 1 h w"]
Corners = Int[Tensor, "n 2"]
"""First row and column of a square."""


@dataclass(frozen=True)
class Jujutsu(Defense):
    """Jujutsu: inpaints the salient region if it also decides the class of other images.

    Attributes:
        radius: half the side of the region, as a share of the image's shorter side, in (0, 0.5].
        saliency: `guided` backpropagation, `smoothgrad`, or `occlusion`: how far the class's logit falls where a
            grey square hides a part of the image.
        samples: noisy copies for `smoothgrad`, at least 1; each costs a forward and a backward pass.
        noise: standard deviation of their noise, as a share of the image's range, at least 0.
        holdouts: number of clean training images to transplant to, at least 2.
        seen: noisy copies and clean images that an adaptive attacker uses at each step, 1 to holdouts.
    """

    radius: float = 0.228
    saliency: Literal["guided", "smoothgrad", "occlusion"] = "guided"
    samples: int = 50
    noise: float = 0.1
    holdouts: int = 100
    seen: int = 4

    title = "Jujutsu"
    paper = "Chen et al. 2023, arXiv 2108.05075"
    kind = "detector"
    presets = {"quick": {"samples": 8}, "paper": {"saliency": "smoothgrad"}}

    def __post_init__(self) -> None:
        within("a radius as a share of the shorter side", self.radius, 0.001, 0.5, "the paper's is 51 of 224 pixels")
        within("samples", self.samples, 1, 10_000, "the paper's are 50")
        within("noise as a share of the range", self.noise, 0, 10, "the paper's is 0.1")
        within("holdouts", self.holdouts, 2, 100_000, "two of them are drawn for each image")
        within("seen copies", self.seen, 1, self.holdouts, "it must not exceed holdouts")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """Clean images to transplant to, and the least salient square of each."""
        images, _, streams = choose(training, rng, self.holdouts, "jujutsu")
        classes = answers(model, images, streams).argmax(1)
        maps = self.salient(model, images, classes, streams, self.samples)
        for _ in range(3):
            maps = self.blurred(maps)
        return {"holdouts": images.clone(), "corners": self.corners(-maps)}

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model that inpaints a region that also decides elsewhere."""
        return _Correcting(self, model, learned)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The expected answer, with a fixed region; and the bare model, whose attack may go undetected."""
        return {"joint": _Expected(self, model, learned), "bare": model}

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The salient region, whether it also decides elsewhere or not."""
        classes = answers(model, images, rng).argmax(1)
        corners = _Correcting(self, model, learned).region(images, classes, rng, self.samples)
        return square_masks(corners, self.side(*images.shape[2:]), images.shape[2:])[:, 0]

    def salient(self, model: Classifier, images: Images, classes: Labels, rng: Streams, samples: int) -> Maps:
        """The saliency of these classes; `samples` are for `smoothgrad`."""
        images = images.detach()
        if self.saliency == "smoothgrad":
            return smooth_grad(model, images, classes, rng, samples, self.noise)
        if self.saliency == "occlusion":
            return occlusion(model, images, classes, rng, self.reach(*images.shape[2:]))

        def guided(part: slice) -> Tensor:
            return saliency(model, images[part], rng[part], "guided", classes[part])[0][:, None]

        return in_pieces(guided, len(images), piece_of(images.shape))

    def reach(self, height: int, width: int) -> int:
        """Half the side of the region in pixels."""
        return max(1, round(self.radius * min(height, width)))

    def blurred(self, saliency: Maps) -> Maps:
        """The mean over a window half as wide as the region."""
        half = self.reach(*saliency.shape[2:]) // 2
        return F.avg_pool2d(pad_mirrored(saliency, half, half), 2 * half + 1, 1)

    def corners(self, saliency: Maps) -> Corners:
        """The square around the largest value of each map, moved inside the image."""
        height, width = saliency.shape[2:]
        reach, side = self.reach(height, width), self.side(height, width)
        peak = saliency.flatten(1).argmax(1)
        row = (peak // width - reach).clamp(0, height - side)
        column = (peak % width - reach).clamp(0, width - side)
        return torch.stack([row, column], 1)

    def side(self, height: int, width: int) -> int:
        """The region's side in pixels."""
        return min(2 * self.reach(height, width), height, width)


class _Regions(Wrapped):
    """Shared by the defended model and its substitute."""

    holdouts: Tensor
    places: Tensor

    def __init__(self, defense: Jujutsu, model: Classifier, learned: Artifact) -> None:
        super().__init__(model, passes=4 + PASSES.get(defense.saliency, 2 * defense.samples), random=True)
        self.defense = defense
        self.register_buffer("holdouts", learned["holdouts"])
        self.register_buffer("places", learned["corners"])

    def region(self, images: Images, classes: Labels, rng: Streams, samples: int) -> Corners:
        maps = self.defense.salient(self.model, images, classes, rng.derive("saliency"), samples)
        return self.defense.corners(self.defense.blurred(maps))

    def transplanted(self, images: Images, corners: Corners, rng: Streams, count: int) -> Float[Tensor, "n count k"]:
        """Logits of `count` clean images per image, with the image's region pasted at their least salient place."""
        drawn = rng.derive("holdouts").permutations(len(self.holdouts))[:, :count]
        count = drawn.shape[1]
        side = self.defense.side(*images.shape[2:])

        def work(part: slice) -> Tensor:
            rows = torch.arange(part.start, part.stop, device=images.device)
            owner, hold = rows // count, drawn.flatten()[rows]
            mixed = transplant(images[owner], corners[owner], self.holdouts[hold].to(images), self.places[hold], side)
            return self.model(mixed, rng[owner].derive(rows % count))

        logits = in_passes(work, drawn.numel(), tuple(images.shape[1:]))
        return logits.reshape(*drawn.shape, logits.shape[1])


class _Correcting(_Regions):
    def forward(self, images: Images, rng: Streams) -> Logits:
        refuse_nan(images, "jujutsu")
        logits = self.model(images, rng)
        classes = logits.argmax(1)
        corners = self.region(images, classes, rng, self.defense.samples)
        elsewhere = self.transplanted(images, corners, rng, 2).argmax(2)
        rows = (elsewhere == classes[:, None]).all(1).nonzero()[:, 0]
        if not len(rows):
            return logits
        masks = square_masks(corners[rows], self.defense.side(*images.shape[2:]), images.shape[2:])
        restored = self.model(inpaint(images[rows], masks), rng[rows])
        return logits.index_copy(0, rows, restored)


class _Expected(_Regions):
    def forward(self, images: Images, rng: Streams) -> Logits:
        seen = self.defense.seen
        logits = self.model(images, rng)
        classes = logits.argmax(1)
        corners = self.region(images, classes, rng, seen)
        masks = square_masks(corners, self.defense.side(*images.shape[2:]), images.shape[2:])
        restored = self.model(inpaint(images, masks), rng)
        elsewhere = self.transplanted(images, corners, rng, seen).softmax(2)
        caught = elsewhere.gather(2, classes[:, None, None].expand(-1, elsewhere.shape[1], 1)).mean(1)
        mixture = (1 - caught) * logits.softmax(1) + caught * restored.softmax(1)
        return mixture.clamp_min(1e-12).log()


def smooth_grad(
    model: Classifier, images: Images, classes: Labels, rng: Streams, samples: int, noise: float
) -> Float[Tensor, "n 1 h w"]:
    """Saliency of a class: the mean gradient under noise, largest absolute value over the channels."""
    scale = noise * (images.amax((1, 2, 3)) - images.amin((1, 2, 3)))

    def work(part: slice) -> Tensor:
        noises = rng[part].derive("noise").normal(samples, *images.shape[1:]).to(images)
        noisy = images[part, None] + scale[part, None, None, None, None] * noises
        rows = torch.arange(noisy.shape[0] * samples, device=images.device)
        streams = rng[part][rows // samples].derive(rows % samples)
        gradient, _ = logit_gradient(model, noisy.flatten(0, 1), streams, classes[part].repeat_interleave(samples))
        return gradient.reshape(noisy.shape).mean(1).abs().amax(1, keepdim=True)

    images = images.detach()
    return in_pieces(work, len(images), max(1, piece_of(images.shape) // samples))


def occlusion(model: Classifier, images: Images, classes: Labels, rng: Streams, side: int) -> Float[Tensor, "n 1 h w"]:
    """Saliency of a class: how far its logit falls under a grey square, the mean over the squares on each pixel."""
    size = images.shape[2:]
    places = torch.stack(
        [torch.linspace(0, length - side, GRID, device=images.device).round().long() for length in size]
    )
    corners = torch.cartesian_prod(*places)
    hidden = square_masks(corners, side, size)
    count = len(corners)

    def work(part: slice) -> Tensor:
        rows = torch.arange(part.start, part.stop, device=images.device)
        owner = rows // count
        masked = images[owner].masked_fill(hidden[rows % count], GREY)
        return model(masked, rng[owner]).gather(1, classes[owner, None])

    with torch.no_grad():
        under = in_passes(work, len(images) * count, tuple(images.shape[1:])).reshape(-1, count)
    squares = hidden[:, 0].to(images.dtype)
    spread = torch.einsum("nm,mhw->nhw", under.amax(1, keepdim=True) - under, squares)
    return (spread / squares.sum(0).clamp_min(1))[:, None]


def square_masks(corners: Corners, side: int, size: torch.Size) -> Bool[Tensor, "n 1 h w"]:
    """The pixels of each square."""
    rows, columns = (torch.arange(length, device=corners.device) for length in size)
    down, right = rows - corners[:, :1], columns - corners[:, 1:]
    inside = ((down >= 0) & (down < side))[:, :, None] & ((right >= 0) & (right < side))[:, None, :]
    return inside[:, None]


def transplant(images: Images, corners: Corners, holdouts: Images, places: Corners, side: int) -> Images:
    """The hold-out images with the squares of `images` pasted at the given places."""
    size = images.shape[2:]
    shift = corners - places
    rows = (torch.arange(size[0], device=images.device) + shift[:, :1]).clamp(0, size[0] - 1)
    columns = (torch.arange(size[1], device=images.device) + shift[:, 1:]).clamp(0, size[1] - 1)
    every = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return torch.where(square_masks(places, side, size), moved, holdouts)
