"""Votes over ablated images and their certificates, for defenses that classify parts of an image."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

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
    Pixels,
    Streams,
)
from bench.memory import in_pieces
from bench.training import Batch

from ._examples import choose, fresh, packed, train, unpacked
from ._passes import in_passes
from ._ranges import within
from ._substitute import SubstituteGradient, mean_of

Votes = Bool[Tensor, "n ablations k"]
Parts = Float[Tensor, "n inputs rows columns"]


class Ablations(ABC):
    """A fixed set of ways to keep only a part of an image.

    Attributes:
        count: number of ablations.
        size: height and width of an ablated image.
    """

    count: int
    size: tuple[int, int]

    @abstractmethod
    def apply(self, images: Images, which: Labels) -> Parts:
        """Image i under ablation `which[i]`, as the network sees it."""

    @abstractmethod
    def retains(self) -> Bool[Tensor, "ablations h w"]:
        """Which pixels have any influence on each ablated image."""


class Voting(Classifier):
    """Classifies every ablation of an image; the class with the most votes wins.

    An ablation votes for every class with a probability of at least `threshold` or, if that is None, for its best
    class. The logits are the shares of the votes plus the mean probabilities, scaled down so that they only break
    ties.
    """

    def __init__(self, net: nn.Module, ablations: Ablations, num_classes: int, threshold: float | None) -> None:
        super().__init__()
        self.net, self.ablations, self.threshold = net, ablations, threshold
        self.num_classes, self.passes = num_classes, ablations.count

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Shares of the votes; shape (n, num_classes)."""
        probabilities = self.probabilities(images)
        mean = probabilities.mean(1)
        shares = self.votes(probabilities).to(mean.dtype).mean(1)
        return shares + mean / (2 * self.ablations.count)

    def supporting(self, images: Images, rng: Streams, logits: Logits) -> Logits:
        """Mean log probabilities of the ablations that vote for the answer of `logits`; of all if none does."""
        probabilities = self.probabilities(images)
        answer = logits.argmax(1)[:, None, None].expand(-1, probabilities.shape[1], 1)
        votes = self.votes(probabilities.detach()).gather(2, answer)[..., 0]
        return mean_of(probabilities.clamp_min(torch.finfo(probabilities.dtype).tiny).log(), votes)

    def probabilities(self, images: Images) -> Float[Tensor, "n ablations k"]:
        """The probability of every class under every ablation."""
        count = self.ablations.count
        weights = next(self.net.parameters())

        def work(part: slice) -> Tensor:
            rows = torch.arange(part.start, part.stop, device=images.device)
            ablated = self.ablations.apply(images[rows // count], rows % count)
            return self.net(ablated.to(weights.dtype)).softmax(1)  # type: ignore[no-any-return]  # nn.Module

        rows = in_passes(work, len(images) * count, (images.shape[1], *self.ablations.size))
        return rows.reshape(len(images), count, rows.shape[1])

    def votes(self, probabilities: Float[Tensor, "n ablations k"]) -> Votes:
        """Which classes each ablation votes for."""
        if self.threshold is None:
            return F.one_hot(probabilities.argmax(2), probabilities.shape[2]).bool()
        return probabilities >= self.threshold


def certified(
    votes: Votes, labels: Labels, retains: Bool[Tensor, "ablations h w"], budget: Budget
) -> Bool[Tensor, "n"]:
    """Which images keep their label under every attack within the budget.

    At worst, every ablation that sees a changed pixel drops its vote for the label and votes for a rival. For a patch,
    every place is tried; for single pixels, the losses of the worst ones are summed. Both look at how the affected
    ablations vote, so they never certify less than a bound that only counts them.

    Args:
        votes: votes on the clean images.
        labels: the true classes, shape (n,).
        retains: which pixels each ablation sees.
        budget: patches or pixels; nothing is certified for any other budget.
    """
    box = budget.box(*retains.shape[1:])
    if box is None:
        return torch.zeros_like(labels, dtype=torch.bool)
    pixels = retains.float()[:, None]
    reached = (F.max_pool2d(pixels, box, 1) if isinstance(budget, Patch) else pixels).flatten(1)
    worst = min(budget.count, reached.shape[1]) if isinstance(budget, Pixels) else 1

    def work(part: slice) -> Tensor:
        cast = votes[part].float()
        own = labels[part, None, None].expand(-1, cast.shape[1], 1)
        lead = cast.gather(2, own) - cast
        losses = torch.einsum("nak,ap->nkp", lead + 1, reached).topk(worst, dim=2).values.sum(2)
        safe = lead.sum(1) > losses
        return (safe | F.one_hot(labels[part], cast.shape[2]).bool()).all(1)

    return in_pieces(work, len(votes), 64)


class Voted(CertifiedDefense):
    """A defense that trains a network of its own to classify ablations, and counts their votes.

    Subclasses are frozen dataclasses with these fields.

    Attributes:
        threshold: θ, the probability from which an ablation votes for a class, in (0, 1]; None for its best class.
        training_images: largest number of training images for the network.
        epochs: how often it sees each of them.
    """

    kind = "certified"
    learning_rate: ClassVar[float] = 3e-3
    threshold: float | None
    training_images: int
    epochs: int

    def __post_init__(self) -> None:
        within("a threshold", self.threshold, 0.001, 1, "with 0.3, at most three classes get a vote")
        within("training_images", self.training_images, 2, math.inf, "the default is 4000")
        within("epochs", self.epochs, 1, math.inf, "the default is 30")

    @abstractmethod
    def fixed(self, shape: tuple[int, int, int], rng: Streams) -> Artifact:
        """What `ablations` needs to know about images of this shape (c, h, w)."""

    @abstractmethod
    def ablations(self, learned: Artifact) -> Ablations:
        """The ablations, given what `fixed` returned."""

    @abstractmethod
    def network(self, known: Artifact, num_classes: int) -> nn.Module:
        """A network for ablated images, with any weights.

        Args:
            known: what `fixed` returned, and the `channels` of the images.
            num_classes: number of classes.
        """

    def initial_network(self, known: Artifact, num_classes: int, rng: Streams) -> nn.Module:
        """The network before training."""
        return fresh(lambda: self.network(known, num_classes), rng)

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The weights of the network, which sees one random ablation of each image per epoch."""
        images, labels, streams = choose(training, rng, self.training_images, self.title)
        channels, height, width = images.shape[1:]
        known = self.fixed((channels, height, width), rng[:1]) | {"channels": torch.tensor(channels)}
        ablations, net = self.ablations(known), self.initial_network(known, model.num_classes, streams)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            mirrored = batch.rng.derive("flip").uniform()[:, None, None, None] < 0.5
            images = torch.where(mirrored, batch.images.flip(3), batch.images)
            which = batch.rng.derive("ablation").integers(ablations.count)
            return F.cross_entropy(network(ablations.apply(images, which)), batch.targets)

        epochs, rate = self.epochs, self.learning_rate
        train(net, images, labels, training, streams, epochs=epochs, learning_rate=rate, batch_size=64, loss=loss)
        return packed(net) | known

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The vote."""
        return self._voting(model, learned)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The votes with the gradient of the ablations that support the answer; and the bare model."""
        voting = self._voting(model, learned)
        return {"votes": SubstituteGradient(voting, voting.supporting), "bare": model}

    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which images keep their label under every attack within `budget`: patches or pixels, nothing otherwise."""
        voting = self._voting(model, learned)
        with torch.no_grad():
            votes = voting.votes(voting.probabilities(images))
        return certified(votes, labels, voting.ablations.retains(), budget)

    def _voting(self, model: Classifier, learned: Artifact) -> Voting:
        net = unpacked(lambda: self.network(learned, model.num_classes), learned)
        return Voting(net, self.ablations(learned), model.num_classes, self.threshold)
