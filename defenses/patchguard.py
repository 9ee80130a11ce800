"""PatchGuard: a network whose features see small parts of an image, and that ignores the strongest of them.

Xiang, Bhagoji, Sehwag, Mittal, "PatchGuard: A Provably Robust Defense against Adversarial Patches via Small Receptive
Fields and Masking" (USENIX Security 2021, arXiv 2005.10884).

    e_c(place) = max(0, local logit of class c at that place of the feature map)
    answer     = argmax over c of  Σ e_c − max over w×w windows W of Σ_{place in W} e_c
    w          = ⌈(p + r − 1) / s⌉ places, which is all that a patch of p pixels reaches with receptive fields of r
                 pixels, s apart
    certificate, for every window P that a patch may reach and every class c ≠ y:
                 Σ_{outside P} e_y − max over W of Σ_{W outside P} e_y  >  Σ_{outside P} e_c

The first sum is the least that an attacker leaves of the true class, with nothing in P. The second one is the most that
any other class reaches: the masked window holds at least as much as P. This is the paper's robust masking with a
threshold of zero, for all classes at once.

Departures: the paper's BagNet-17 is trained on ImageNet; ours is a small network of its own with receptive fields of 9
of 32 pixels (other images are first resized), trained on the training images. The defended model is not used at all.
The patch is that of `area`; as in PatchCleanser, it may be turned by default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

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
)
from bench.memory import in_pieces, piece_of
from bench.training import Batch

from ._examples import choose, fresh, packed, train, unpacked
from ._ranges import within
from ._substitute import SubstituteGradient

Evidence = Float[Tensor, "n k rows columns"]
FIELD, STRIDE = 9, 2
"""Side of a receptive field and distance between two of them, in pixels of the resized image."""
SIDE = 32
"""Images are reduced or enlarged by a whole factor to this side at least."""


@dataclass(frozen=True)
class PatchGuard(CertifiedDefense):
    """PatchGuard: small receptive fields, the strongest window of which is ignored; certified against patches.

    Attributes:
        area: the largest patch to defend against, as a share of the image, in (0, 1].
        turned: whether that patch may be rotated by any angle; otherwise it is an upright square.
        width: channels of the network's first layer, at least 1.
        training_images: the largest number of images to train on, at least 2.
        epochs: how often training sees each of them.
    """

    area: float = 0.05
    turned: bool = True
    width: int = 32
    training_images: int = 4000
    epochs: int = 30

    title = "PatchGuard"
    paper = "Xiang et al. 2021, arXiv 2005.10884"
    note = "with a small network of its own instead of BagNet-17"
    kind = "certified"
    presets = {"quick": {"epochs": 10}, "paper": {"area": 0.024, "turned": False, "training_images": 50_000}}

    def __post_init__(self) -> None:
        within("an area as a share of the image", self.area, 1e-6, 1, "the paper's are 0.01 to 0.03")
        within("a width", self.width, 1, 4096, "32 is the default")
        within("training_images", self.training_images, 2, math.inf, "4000 is the default")
        within("epochs", self.epochs, 1, 1e5, "30 is the default")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The network's weights."""
        images, labels, streams = choose(training, rng, self.training_images, self.title)
        net = fresh(lambda: LocalNet(images.shape[1], model.num_classes, self.width), streams)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            mirrored = batch.rng.derive("flip").uniform()[:, None, None, None] < 0.5
            local = network(torch.where(mirrored, batch.images.flip(3), batch.images))
            return F.cross_entropy(local.mean((2, 3)), batch.targets)

        train(net, images, labels, training, streams, epochs=self.epochs, learning_rate=3e-3, batch_size=64, loss=loss)
        return packed(net)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The network without its strongest window."""
        return _Local(self, model.num_classes, self._network(model, learned))

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The answer with its own gradient, and with that of all local logits; and the bare model.

        The gradient of the mean passes the clip and the masked window.
        """
        local = _Local(self, model.num_classes, self._network(model, learned))
        return {"defended": local, "mean": SubstituteGradient(local, local.mean), "bare": model}

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The window that is ignored for the answer, in pixels."""
        local = _Local(self, model.num_classes, self._network(model, learned))
        with torch.no_grad():
            evidence = local.evidence(images)
            window = self.window(images, evidence)
            sums = _windows(evidence, window)
            chosen = (evidence.sum((2, 3)) - sums.amax((2, 3))).argmax(1)
        best = sums[torch.arange(len(images), device=images.device), chosen]
        place = F.one_hot(best.flatten(1).argmax(1), best[0].numel()).reshape(best.shape)[:, None]
        padding = (window[1] - 1, window[1] - 1, window[0] - 1, window[0] - 1)
        marked = F.max_pool2d(F.pad(place.to(images.dtype), padding), window, 1)
        return F.interpolate(marked, images.shape[2:])[:, 0] > 0.5

    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which images no patch can turn, if the budget's patch is no larger than the one that is masked."""
        box, own = budget.box(*images.shape[2:]), Patch(self.area, self.turned).box(*images.shape[2:])
        if box is None or box[0] > own[0] or box[1] > own[1]:
            return torch.zeros_like(labels, dtype=torch.bool)
        local = _Local(self, model.num_classes, self._network(model, learned))

        def work(part: slice) -> Tensor:
            evidence = local.evidence(images[part])
            return proven(evidence, labels[part], self.window(images[part], evidence))

        with torch.no_grad():
            return in_pieces(work, len(images), piece_of(images.shape))

    def window(self, images: Images, evidence: Evidence) -> tuple[int, int]:
        """How many rows and columns of the feature map a patch reaches."""
        box, (smaller, larger) = Patch(self.area, self.turned).box(*images.shape[2:]), factors(images)
        reached = (math.ceil((side * larger + FIELD * smaller - 1) / (STRIDE * smaller)) for side in box)
        tall, wide = (min(places, length) for places, length in zip(reached, evidence.shape[2:], strict=True))
        return tall, wide

    def _network(self, model: Classifier, learned: Artifact) -> LocalNet:
        channels = learned["net.features.0.weight"].shape[1]
        return unpacked(lambda: LocalNet(channels, model.num_classes, self.width), learned)


class LocalNet(nn.Module):
    """Images -> logits at each place of a feature map, each from 9×9 pixels of the resized image."""

    def __init__(self, channels: int, num_classes: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        shape = ((channels, width, 3, 1), (width, 2 * width, 3, STRIDE), (2 * width, 4 * width, 3, 1))
        for inputs, outputs, kernel, stride in (*shape, (4 * width, 4 * width, 1, 1)):
            layers += [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.answer = nn.Conv2d(4 * width, num_classes, 1)

    def forward(self, images: Images) -> Evidence:
        """Local logits, not clipped."""
        smaller, larger = factors(images)
        resized = F.interpolate(F.avg_pool2d(images, smaller), scale_factor=larger)
        logits: Tensor = self.answer(self.features(resized))
        return logits


class _Local(Classifier):
    """Sums local evidence, without the strongest window of each class."""

    def __init__(self, defense: PatchGuard, num_classes: int, net: LocalNet) -> None:
        super().__init__()
        self.defense, self.num_classes, self.net = defense, num_classes, net

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits, divided by the number of places."""
        evidence = self.evidence(images)
        strongest = _windows(evidence, self.defense.window(images, evidence)).amax((2, 3))
        return (evidence.sum((2, 3)) - strongest) / math.prod(evidence.shape[2:])

    def mean(self, images: Images, rng: Streams, logits: Logits) -> Logits:
        """The mean local logits."""
        return self._local(images).mean((2, 3))

    def evidence(self, images: Images) -> Evidence:
        """The clipped local logits."""
        return self._local(images).relu()

    def _local(self, images: Images) -> Evidence:
        local: Tensor = self.net(images.to(self.net.answer.weight.dtype)).to(images.dtype)
        return local


def proven(evidence: Evidence, labels: Labels, window: tuple[int, int]) -> Bool[Tensor, "n"]:
    """Which images keep their label whatever the evidence in any one window becomes; see the top of the file."""
    total = evidence.sum((2, 3))
    outside = total[:, :, None, None] - _windows(evidence, window)  # of a patch at each place
    own = evidence.gather(1, labels[:, None, None, None].expand(-1, 1, *evidence.shape[2:]))
    sure = torch.ones_like(labels, dtype=torch.bool)
    for row in range(outside.shape[2]):
        for column in range(outside.shape[3]):
            hidden = own.clone()
            hidden[:, :, row : row + window[0], column : column + window[1]] = 0
            least = hidden.sum((1, 2, 3)) - _windows(hidden, window).amax((1, 2, 3))
            rivals = outside[:, :, row, column].scatter(1, labels[:, None], -torch.inf).amax(1)
            sure &= least > rivals + 1e-4 * total.amax(1)  # more than float32 can round
    return sure


def factors(images: Images) -> tuple[int, int]:
    """The whole factors by which images are reduced and enlarged; one of them is 1."""
    side = min(images.shape[2:])
    return max(1, side // SIDE), max(1, math.ceil(SIDE / max(1, side)))


def _windows(evidence: Evidence, window: tuple[int, int]) -> Float[Tensor, "n k down right"]:
    """Sums over all windows."""
    return F.avg_pool2d(evidence, window, 1, divisor_override=1)
