"""The training loss over the slices of an image, and the ways in which slices decide together."""

from __future__ import annotations

import math
from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Classifier, Images, Labels, Logits, Streams

from ._inflate import SliceLogits, VolumeNet
from ._substitute import mean_of
from ._volume import Volumizer

Aggregate = Literal["mean-prob", "mean-logprob", "vote", "trimmed-mean"]


class Volumized(Classifier):
    """Classifies every slice of an image's volume, and combines the answers.

    The logits are log probabilities (`mean-prob`; `trimmed-mean`, which omits the smallest and the largest quarter for
    each class; and `mean-logprob`), or shares of the votes (`vote`), with the mean probabilities as a tie-breaker.
    """

    def __init__(self, model: Classifier, net: VolumeNet, volumizer: Volumizer, rule: Aggregate, depth: int) -> None:
        super().__init__()
        self.net, self.volumizer, self.rule = net, volumizer, rule
        self.num_classes, self.rejects, self.passes = model.num_classes, model.rejects, model.passes * depth
        self.random = model.random or volumizer.order == "random"

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of shape (n, num_classes)."""
        return aggregated(self.slices(images, rng), self.rule)

    def supporting(self, images: Images, rng: Streams, logits: Logits) -> Logits:
        """Mean log probabilities of the slices that vote for the answer of `logits`; of all if none does."""
        cast = self.slices(images, rng).log_softmax(2)
        return mean_of(cast, cast.argmax(2) == logits.argmax(1, keepdim=True))

    def slices(self, images: Images, rng: Streams) -> SliceLogits:
        """The logits of each slice, in the order of the volume."""
        logits: Tensor = self.net(self.volumizer.volume(images, rng), rng)
        return logits


def pal(logits: SliceLogits, labels: Labels, reduction: Literal["mean", "sum"]) -> Float[Tensor, ""]:
    """The patch aggregate loss: the sum or mean of the cross-entropies of all slices; the mean over images."""
    count = logits.shape[1]
    mean = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(count))
    return mean * count if reduction == "sum" else mean


def aggregated(logits: SliceLogits, rule: Aggregate) -> Logits:
    """The answer for each image from those for its slices."""
    count = logits.shape[1]
    logs = logits.log_softmax(2)
    if rule == "mean-logprob":
        return logs.mean(1)
    if rule == "vote":
        return votes(logits).to(logs.dtype).mean(1) + logs.exp().mean(1) / (2 * count)
    if rule == "trimmed-mean":
        logs = logs.sort(dim=1).values[:, count // 4 : count - count // 4]
    return logs.logsumexp(1) - math.log(logs.shape[1])


def votes(logits: SliceLogits) -> Bool[Tensor, "n z k"]:
    """Each slice's vote for its most probable class."""
    return F.one_hot(logits.argmax(2), logits.shape[2]).bool()
