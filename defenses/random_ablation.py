"""Random ablation: groups of scattered pixels vote, and a few changed pixels reach only a few groups.

Levine and Feizi, "Robustness Certificates for Sparse Adversarial Attacks by Randomized Ablation" (AAAI 2020,
arXiv 1911.09272), in the derandomised form of Hammoudeh and Lowd, "Feature Partition Aggregation"
(AAAI 2024, arXiv 2302.11628).

    each of `partitions` random partitions puts every pixel into one of `groups` groups, once and for all
    n_c(x) = number of groups, over all partitions, with p_c(the group's pixels alone) ≥ θ;  answer = argmax n_c(x)
    proof: for every c ≠ y,  n_y − n_c  >  sum of the `count` largest losses of a single pixel,
           loss of a pixel = Σ over the groups that hold it of 1 + [votes y] − [votes c]

The first paper draws thousands of random subsets for each image and proves with a stated probability. Here the groups
are fixed, so the answer is the same each time, the proof holds with certainty, and an image costs groups × partitions
passes of a small network that sees (x, 1 − x) of its pixels and zeros elsewhere. As a patch covers neighbouring
pixels, which lie in different groups, it is hardly ever certified against. The defended model is not asked at all.

The votes have no gradient; an attacker who knows differentiates the mean probability over all groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bench.contracts import (
    Artifact,
    Budget,
    CertifiedDefense,
    Classifier,
    Examples,
    Images,
    InputError,
    Labels,
    Streams,
)

from ._ablation import Ablations, Parts, Voting, train
from ._examples import conv_net, unpacked
from ._ranges import within


@dataclass(frozen=True)
class RandomAblation(CertifiedDefense):
    """Random ablation: scattered pixels vote; certified against few changed pixels.

    Attributes:
        groups: into how many groups a partition puts the pixels, at least 2; each sees 1/groups of the image.
        partitions: how many partitions there are, at least 1.
        threshold: θ, the probability from which a group votes for a class, in (0, 1].
        training_images: how many training images the network learns from at the most.
        epochs: how often it sees each.
    """

    groups: int = 14
    partitions: int = 3
    threshold: float = 0.3
    training_images: int = 4000
    epochs: int = 30

    title: ClassVar[str] = "Random ablation"
    paper: ClassVar[str] = "Levine & Feizi 2020, arXiv 1911.09272; Hammoudeh & Lowd 2024, arXiv 2302.11628"
    kind = "certified"
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "quick": {"epochs": 10},
        "paper": {"groups": 14, "training_images": 50_000, "epochs": 400},
    }

    def __post_init__(self) -> None:
        within("groups", self.groups, 2, math.inf, "14 leave 75 of 32×32 pixels to each, as in the paper")
        within("partitions", self.partitions, 1, math.inf, "the default is 3")
        within("a threshold", self.threshold, 0.001, 1, "0.3 lets three classes vote at the most")
        within("training_images", self.training_images, 2, math.inf, "the default is 4000")
        within("epochs", self.epochs, 1, math.inf, "the default is 30")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where there are more groups than pixels."""
        _, height, width = image_shape
        if self.groups > height * width:
            raise InputError(f"random-ablation expects no more groups than pixels ({height * width}): {self.groups}.")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The partitions, and the weights of the network that classifies groups."""
        if not len(training.labels):
            raise InputError("random-ablation trains a network, but the data set has no training images.")
        channels, height, width = training.load(torch.zeros(1, dtype=torch.int64)).shape[1:]
        source = rng[:1].derive("partitions")
        orders = torch.cat([source.permutations(height * width) for _ in range(self.partitions)])
        member = (orders.argsort(1) % self.groups).reshape(self.partitions, height, width)
        make = self._network(channels, model.num_classes)
        weights = train(self._groups(member), make, training, rng, self.training_images, self.epochs, "random-ablation")
        return weights | {"member": member}

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The vote of the groups."""
        return self._voting(model, learned)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The mean probability over all groups; and the bare model, whose attack may carry over."""
        return {"mean": self._voting(model, learned, soft=True), "bare": model}

    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which images no few pixels (and, rarely, no patch) within `budget` can turn; nothing for other budgets."""
        return self._voting(model, learned).certified(images, labels, budget)

    def _voting(self, model: Classifier, learned: Artifact, soft: bool = False) -> Voting:
        channels = learned["net.0.weight"].shape[1] // 2
        net = unpacked(self._network(channels, model.num_classes), learned)
        return Voting(net, self._groups(learned["member"]), model.num_classes, self.threshold, soft)

    def _groups(self, member: Int[Tensor, "partitions h w"]) -> Groups:
        return Groups(member, self.groups)

    @staticmethod
    def _network(channels: int, classes: int) -> Any:
        return lambda: conv_net(2 * channels, classes, strides=(2, 2, 2), widths=(64, 128, 128))


class Groups(Ablations):
    """Each group of each partition of the pixels."""

    def __init__(self, member: Int[Tensor, "partitions h w"], groups: int) -> None:
        numbers = torch.arange(groups, device=member.device)[:, None, None]
        self.masks = (member[:, None] == numbers).flatten(0, 1)
        self.count = len(self.masks)
        self.size = (member.shape[1], member.shape[2])

    def seen(self, images: Images, which: Labels) -> Parts:
        """(x, 1 − x) where the group's pixels are, zero elsewhere: black is not the same as missing."""
        kept = self.masks.to(images.device)[which][:, None].to(images.dtype)
        return torch.cat([images * kept, (1 - images) * kept], 1)

    def retains(self) -> Bool[Tensor, "ablations h w"]:
        """The groups."""
        return self.masks
