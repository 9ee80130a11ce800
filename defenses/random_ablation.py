"""Random ablation: groups of scattered pixels vote, and a few changed pixels affect only a few groups.

Levine and Feizi, "Robustness Certificates for Sparse Adversarial Attacks by Randomized Ablation" (AAAI 2020,
arXiv 1911.09272), in the derandomised form of Hammoudeh and Lowd, "Feature Partition Aggregation"
(AAAI 2024, arXiv 2302.11628).

    each of `partitions` random partitions, fixed once, puts every pixel into one of `groups` groups
    n_c(x) = number of groups, over all partitions, with p_c(only the group's pixels) ≥ θ;  answer = argmax n_c(x)
    certificate: for every c ≠ y,  n_y − n_c  >  sum of the `count` largest losses of a single pixel,
                 loss of a pixel = Σ over the groups that contain it of 1 + [votes y] − [votes c]

The first paper draws thousands of random subsets for each image and certifies with a stated probability. Here the
groups are fixed, so the answer is deterministic, certificates hold with certainty, and an image costs groups ×
partitions passes of a small network that sees (x, 1 − x) of its pixels and zeros elsewhere. A patch covers neighbouring
pixels, which are in different groups, so patches are hardly ever certified. The defended model is not used at all.

The votes have no gradient. An adaptive attacker watches them and follows the mean log probability of the groups that
still vote for the answer: those that have changed their vote need no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from bench.contracts import Artifact, Images, InputError, Labels, Streams

from ._ablation import Ablations, Parts, Voted
from ._examples import conv_net
from ._ranges import within


@dataclass(frozen=True)
class RandomAblation(Voted):
    """Random ablation: scattered pixels vote; certified against a few changed pixels.

    Attributes:
        groups: number of groups in a partition, at least 2; each has 1/groups of the pixels.
        partitions: number of partitions, at least 1.
        threshold: θ, the probability from which a group votes for a class, in (0, 1].
    """

    groups: int = 14
    partitions: int = 3
    threshold: float = 0.3
    training_images: int = 4000
    epochs: int = 30

    title = "Random ablation"
    paper = "Levine & Feizi 2020, arXiv 1911.09272; Hammoudeh & Lowd 2024, arXiv 2302.11628"
    presets = {"quick": {"epochs": 10}, "paper": {"groups": 14, "training_images": 50_000, "epochs": 400}}

    def __post_init__(self) -> None:
        super().__post_init__()
        within("groups", self.groups, 2, math.inf, "14 give each 75 of 32×32 pixels, as in the paper")
        within("partitions", self.partitions, 1, math.inf, "the default is 3")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError for more groups than pixels."""
        _, height, width = image_shape
        if self.groups > height * width:
            raise InputError(f"Expected at most as many groups as pixels ({height * width}), but got {self.groups}.")

    def fixed(self, shape: tuple[int, int, int], rng: Streams) -> Artifact:
        """The partitions: the group of each pixel, shape (partitions, h, w)."""
        _, height, width = shape
        source = rng.derive("partitions")
        orders = torch.cat([source.permutations(height * width) for _ in range(self.partitions)])
        return {"member": (orders.argsort(1) % self.groups).reshape(self.partitions, height, width)}

    def ablations(self, learned: Artifact) -> Groups:
        """Each group of each partition."""
        return Groups(learned["member"], self.groups)

    def network(self, known: Artifact, num_classes: int) -> nn.Module:
        """A network that sees (x, 1 − x), that is, twice the channels."""
        return conv_net(2 * int(known["channels"]), num_classes, strides=(2, 2, 2), widths=(64, 128, 128))


class Groups(Ablations):
    """Each group of each partition of the pixels."""

    def __init__(self, member: Int[Tensor, "partitions h w"], groups: int) -> None:
        numbers = torch.arange(groups, device=member.device)[:, None, None]
        self.masks = (member[:, None] == numbers).flatten(0, 1)
        self.count = len(self.masks)
        self.size = (member.shape[1], member.shape[2])

    def apply(self, images: Images, which: Labels) -> Parts:
        """(x, 1 − x) for the group's pixels and zero elsewhere, so that black differs from missing."""
        kept = self.masks.to(images.device)[which][:, None].to(images.dtype)
        return torch.cat([images * kept, (1 - images) * kept], 1)

    def retains(self) -> Bool[Tensor, "ablations h w"]:
        """The groups."""
        return self.masks
