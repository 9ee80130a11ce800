"""PatchCleanser: masks every place where a patch may be, twice, and returns what the classifier then agrees on.

Xiang, Mahloujifar, Mittal, "PatchCleanser: Certifiably Robust Defense against Adversarial Patches for Any Image
Classifier" (USENIX Security 2022, arXiv 2108.09135).

    masks: `masks` per axis, stride s = ⌈(n − p + 1) / masks⌉, side p + s − 1, the last one moved inwards:
           so that anything inside a p×p box is fully covered by one of them
    round 1: y_i = argmax f(x under mask i); if all agree -> that class
    round 2: for each i with y_i ≠ majority: if argmax f(x under masks i and j) = y_i for every j -> y_i
             (the first such i); otherwise -> the majority
    certificate: f(x under masks i and j) = y for every pair i ≤ j  =>  no patch in a p×p box changes the answer y

A network that has never seen masks is sure of little under two of them. So the paper also trains with masks (Cutout,
arXiv 1708.04552): with `epochs`, a copy of the network is tuned on training images under two random masks of its own
set, as the certificate asks it.

The certificate holds for patches up to `area` only. It has to be the budget that a benchmark declares: a benchmark of
2 % names `patchcleanser:area=0.02`; a smaller area than the budget's certifies nothing.

Where the paper is silent: ties go to the lowest class; masks are filled with mid-grey before normalisation. The box is
that of the budget `patch ≤ area`; by default, the patch may be rotated by any angle, as that budget allows.

The logits are the mean probabilities of the first round, with 2 added to the answer, so that black-box attacks see
their progress. An adaptive attacker watches these answers and follows the mean log probabilities under the masks that
still vote for the answer: each of them has to be fooled, and those that are fooled need no more. Fewer and larger masks
(`seen` per axis) show that direction at a fraction of the cost. With masks=3, ten pixels by GreedyFool leave none of 8
CIFAR-10 images this way, and 3 by the mean probability (ResNet-20).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bench.augment import mirrored_shifts
from bench.contracts import (
    Artifact,
    Budget,
    CertifiedDefense,
    Classifier,
    Examples,
    Images,
    Labels,
    Logits,
    Patch,
    Streams,
    Wrapped,
)
from bench.training import Batch

from ._examples import choose, packed, train
from ._passes import in_passes
from ._ranges import within
from ._substitute import SubstituteGradient, mean_of
from ._training import trained

Masks = Bool[Tensor, "m h w"]
"""True where a mask hides the image."""
Span = tuple[int, int]
"""The first index that a mask hides along an axis, and the first one after it."""
PROBES = 4
"""About how many second masks a minority vote must withstand before it is tested under all of them."""


@dataclass(frozen=True)
class PatchCleanser(CertifiedDefense):
    """PatchCleanser: double masking; certified against patches, for any classifier.

    Attributes:
        area: the largest patch to defend against, as a share of the image, in (0, 1].
        turned: whether that patch may be rotated by any angle; otherwise it is an upright square.
        masks: masks along each axis, at least 1; an image costs masks² passes, and more if they disagree.
        fill: grey level of the masks, in [0, 1].
        seen: masks along each axis that an adaptive attacker differentiates, at least 1, limited to `masks`.
        epochs: how often training under masks sees each image, at least 1; None leaves the network as it is.
        learning_rate: its highest rate.
        training_images: the largest number of images to train on, at least 2.
    """

    area: float = 0.05
    turned: bool = True
    masks: int = 6
    fill: float = 0.5
    seen: int = 3
    epochs: int | None = None
    learning_rate: float = 1e-3
    training_images: int = 4000

    title = "PatchCleanser"
    paper = "Xiang et al. 2022, arXiv 2108.09135"
    kind = "certified"
    presets = {"quick": {"masks": 3}, "paper": {"area": 0.02, "turned": False}, "cutout": {"epochs": 6}}

    def __post_init__(self) -> None:
        within("an area as a share of the image", self.area, 1e-6, 1, "the paper's is 0.02")
        within("masks along each axis", self.masks, 1, 1000, "the paper's are 6")
        within("seen masks along each axis", self.seen, 1, 1000, "3 cost nine passes per step")
        within("a fill in [0, 1]", self.fill, 0, 1, "0.5 is mid-grey")
        within("epochs", self.epochs, 1, 1e5, "omit them for a network that is not trained")
        within("a learning rate", self.learning_rate, 0, 10, "0.001 is the default")
        within("training_images", self.training_images, 2, 1e9, "4000 is the default")

    @property
    def learns(self) -> bool:
        """Whether the network is trained under masks."""
        return self.epochs is not None

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The weights of the network after its training under masks; nothing without `epochs`."""
        if self.epochs is None:
            return {}
        images, labels, streams = choose(training, rng, self.training_images, self.title)
        network, hidden = copy.deepcopy(model), self.hiding(*images.shape[2:]).to(images.device)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            both = hidden[batch.rng.derive("masks").integers(len(hidden), 2)].any(1, keepdim=True)
            return F.cross_entropy(network(batch.images.masked_fill(both, self.fill), batch.rng), batch.targets)

        settings: dict[str, Any] = {"epochs": self.epochs, "learning_rate": self.learning_rate, "weight_decay": 5e-4}
        augment = partial(mirrored_shifts, shift=2, mirror=True)
        train(network, images, labels, training, streams, loss=loss, augment=augment, **settings)
        return packed(network)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind double masking."""
        return _DoubleMasking(self, _tuned(model, learned))

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The mask whose class outvotes the majority; none where the masks agree or no minority lasts."""
        masking, hidden = _DoubleMasking(self, _tuned(model, learned)), self.hiding(*images.shape[2:]).to(images.device)
        with torch.no_grad():
            first = masking.under(images, hidden, rng)
            _, deciding = masking.settle(images, hidden, first.argmax(2), first.shape[2], rng)
        return hidden[deciding] & (deciding >= 0)[:, None, None]

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The defended answers with the gradient of a first round with few masks; and the network without masks."""
        network = _tuned(model, learned)
        few = _Masking(replace(self, masks=min(self.seen, self.masks)), network)
        return {"defended": SubstituteGradient(self.protect(model, learned), few.supporting), "bare": network}

    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which images are classified correctly under every pair of masks, if the masks cover the budget's patches."""
        height, width = images.shape[2:]
        box = budget.box(height, width)
        rows, columns = self._spans(height, width)
        certified = torch.zeros_like(labels, dtype=torch.bool)
        if model.random or box is None or not (covers(rows, box[0], height) and covers(columns, box[1], width)):
            return certified
        masking = _Masking(self, _tuned(model, learned))
        hidden = self.hiding(height, width).to(images.device)
        rng = Streams.of(0, torch.arange(len(images), device=images.device))
        with torch.no_grad():
            correct = masking.under(images, hidden, rng).argmax(2) == labels[:, None]
            left = correct.all(1).nonzero()[:, 0]
            if len(left):
                first, second = torch.triu_indices(len(hidden), len(hidden), 1, device=images.device)
                twice = masking.under(images[left], hidden[first] | hidden[second], rng[left]).argmax(2)
                certified[left] = (twice == labels[left, None]).all(1)
        return certified

    def hiding(self, height: int, width: int) -> Masks:
        """All masks of the first round."""
        rows, columns = self._spans(height, width)
        down, right = _marks(rows, height), _marks(columns, width)
        return (down[:, None, :, None] & right[None, :, None, :]).flatten(0, 1)

    def _spans(self, height: int, width: int) -> tuple[list[Span], list[Span]]:
        """The rows and the columns of the masks."""
        tall, wide = Patch(self.area, self.turned).box(height, width)
        return spans(height, tall, self.masks), spans(width, wide, self.masks)


def _tuned(model: Classifier, learned: Artifact) -> Classifier:
    return trained(model, learned) if learned else model


class _Masking(Wrapped):
    """A model that classifies images under masks."""

    def __init__(self, defense: PatchCleanser, model: Classifier) -> None:
        super().__init__(model, passes=defense.masks**2)
        self.defense = defense

    def under(self, images: Images, hidden: Masks, rng: Streams) -> Float[Tensor, "n m k"]:
        """Logits of every image under every mask."""
        count = len(hidden)
        rows = torch.arange(len(images) * count, device=images.device)
        logits = self.ask(images, rows // count, lambda part: hidden[part % count], rng)
        return logits.reshape(len(images), count, logits.shape[1])

    def ask(
        self, images: Images, owners: Int[Tensor, "rows"], hidden: Callable[[Tensor], Masks], rng: Streams
    ) -> Float[Tensor, "rows k"]:
        """Logits of image `owners[row]` under the mask `hidden(row)`, for every row."""
        rows = torch.arange(len(owners), device=images.device)

        def work(part: slice) -> Tensor:
            owner = owners[part]
            masked = images[owner].masked_fill(hidden(rows[part])[:, None], self.defense.fill)
            return self.model(masked, rng[owner])

        return in_passes(work, len(owners), tuple(images.shape[1:]))

    def supporting(self, images: Images, rng: Streams, logits: Logits) -> Logits:
        """Mean log probabilities under the masks that vote for the answer of `logits`; under all if none does."""
        hidden = self.defense.hiding(*images.shape[2:]).to(images.device)
        votes = self.under(images, hidden, rng).log_softmax(2)
        return mean_of(votes, votes.argmax(2) == logits.argmax(1, keepdim=True))


class _DoubleMasking(_Masking):
    def forward(self, images: Images, rng: Streams) -> Logits:
        hidden = self.defense.hiding(*images.shape[2:]).to(images.device)
        first = self.under(images, hidden, rng)
        with torch.no_grad():
            answer, _ = self.settle(images, hidden, first.argmax(2), first.shape[2], rng)
        return first.softmax(2).mean(1) + 2 * F.one_hot(answer, first.shape[2])

    def settle(
        self, images: Images, hidden: Masks, votes: Int[Tensor, "n m"], classes: int, rng: Streams
    ) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
        """The answer, given the classes of the first round, and the mask that decides it against the majority, or -1.

        Only minority masks cost a second round.
        """
        answer = F.one_hot(votes, classes).sum(1).argmax(1)
        deciding = torch.full_like(answer, -1)
        image, mask = (votes != answer[:, None]).nonzero(as_tuple=True)

        def agreed(image: Tensor, mask: Tensor, second: Masks) -> Bool[Tensor, "rows"]:
            count = len(second)
            owners = image.repeat_interleave(count)
            twice = self.ask(
                images, owners, lambda rows: hidden[mask[rows // count]] | second[rows % count], rng
            ).argmax(1)
            return (twice.reshape(-1, count) == votes[image, mask][:, None]).all(1)

        # A few second masks refute nearly all votes that do not last; among the others, the first that lasts counts.
        kept = agreed(image, mask, hidden[:: max(1, len(hidden) // PROBES)])
        image, mask = image[kept], mask[kept]
        while len(image):
            first = torch.ones_like(image, dtype=torch.bool)
            first[1:] = image[1:] != image[:-1]
            lasts = agreed(image[first], mask[first], hidden)
            settled = image[first][lasts]
            deciding[settled] = mask[first][lasts]
            answer[settled] = votes[settled, deciding[settled]]
            left = ~first & ~torch.isin(image, settled)
            image, mask = image[left], mask[left]
        return answer, deciding


def spans(length: int, box: int, masks: int) -> list[Span]:
    """Masks along an axis such that every run of `box` places is under one of them."""
    stride = -(-(length - box + 1) // masks)
    side = box + stride - 1
    starts = sorted({min(number * stride, length - side) for number in range(masks)})
    return [(start, start + side) for start in starts]


def covers(masks: list[Span], box: int, length: int) -> bool:
    """Whether every run of `box` places along an axis is under one mask."""
    runs = range(length - box + 1)
    return all(any(start <= run and run + box <= end for start, end in masks) for run in runs)


def _marks(masks: list[Span], length: int) -> Bool[Tensor, "m length"]:
    places = torch.arange(length)
    return torch.stack([(places >= start) & (places < end) for start, end in masks])
