"""Vax-a-Net-style: fine-tunes the classifier against a network that generates patches for any target class.

After the abstract of Gittings, Schneider, Collomosse, "Vax-a-Net: Training-time Defence Against Adversarial Patch
Attacks" (ACCV 2020, arXiv 2009.08194): a conditional generative network learns to make patches while the classifier is
fine-tuned on images with them. The paper's architecture, losses and schedule were not available; these are ours, hence
"style" in the name.

    p = G(noise, t)                  a patch for a random wrong class t
    x' = x with p at a random place, covering `area` of it
    classifier:   α · CE(f(x), y) + (1 − α) · CE(f(x'), y)
    generator:    CE(f(x'), t)       with the classifier in evaluation mode and its weights fixed

Both learn in every step. The generator goes from 4×4 to 32×32 in three transposed convolutions, as in DCGAN (arXiv
1511.06434), and its output is scaled to the patch. Only the classifier is kept, and its gradients are exact. For
patches by gradient steps instead of a generator, see adversarial-training:patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Examples, Images, Labels, Streams
from bench.training import Batch, private_randomness

from ._examples import packed, seed_of
from ._ranges import within
from ._squares import pasted
from ._training import Trained, cross_entropies, evaluating

NOISE = 64
"""Length of the random input of the generator, and of the embedding of the target class."""


class PatchGenerator(nn.Module):
    """Noise and a class -> a patch of 32×32 in [0, 1]."""

    def __init__(self, classes: int, channels: int, width: int = 64) -> None:
        super().__init__()
        self.wanted = nn.Embedding(classes, NOISE)
        self.first = nn.Linear(2 * NOISE, width * 16)
        widths = (width, width // 2, width // 4)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(layer for a, b in pairwise(widths) for layer in _upsampling(a, b)),
            nn.ConvTranspose2d(widths[-1], channels, 4, 2, 1),
            nn.Sigmoid(),
        )

    def forward(self, noise: Float[Tensor, "n z"], classes: Labels) -> Images:
        """One patch per row."""
        features = self.first(torch.cat([noise, self.wanted(classes)], 1))
        return self.layers(features.unflatten(1, (-1, 4, 4)))  # type: ignore[no-any-return]  # nn.Module


def _upsampling(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.ConvTranspose2d(inputs, outputs, 4, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()


class _Contest(nn.Module):
    """Both networks, for one optimiser and one checkpoint."""

    def __init__(self, classifier: Classifier, generator: PatchGenerator) -> None:
        super().__init__()
        self.classifier, self.generator = classifier, generator


@dataclass(frozen=True)
class VaxANetStyle(Trained):
    """Vax-a-Net-style: fine-tuned against a network that generates patches for any target class.

    Attributes:
        area: share of the image that a patch covers, in (0, 1].
        clean_share: α, the weight of the clean images, in [0, 1].
    """

    area: float = 0.1
    clean_share: float = 0.5

    title = "Vax-a-Net-style"
    paper = "Gittings et al. 2020, arXiv 2009.08194 (after the abstract)"
    note = "built from the paper's abstract; its networks and losses were not available"
    tuned_on = ("patch",)
    presets = {"quick": {"epochs": 2}, "paper": {"epochs": 30, "training_images": 50_000}}

    def __post_init__(self) -> None:
        super().__post_init__()
        within("an area", self.area, 1e-6, 1, "0.1 is the default")
        within("a share of clean images", self.clean_share, 0, 1, "0.5 is the default")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The classifier's weights; the generator is discarded."""
        images, labels, streams = self.examples(training, rng)
        with private_randomness(seed_of(streams.derive("generator"))):
            generator = PatchGenerator(model.num_classes, images.shape[1]).to(images.device)
        contest = _Contest(self.initial_network(model, images, streams), generator)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            return self.contest_loss(contest.classifier, contest.generator, batch)

        self.train(contest, images, labels, training, streams, loss=loss)
        return packed(contest.classifier)

    def contest_loss(self, classifier: Classifier, generator: PatchGenerator, batch: Batch) -> Tensor:
        """The sum of both losses; no gradient flows from one's loss into the other."""
        clean, labels, rng = batch.images, batch.targets, batch.rng
        targets = (labels + 1 + rng.derive("wanted").integers(classifier.num_classes - 1)) % classifier.num_classes
        patches = generator(rng.derive("noise").normal(NOISE), targets)
        attacked = pasted(clean, patches.to(clean.dtype), rng.derive("place"), self.area)
        fixed = {name: weight.detach() for name, weight in classifier.named_parameters()}
        with evaluating(classifier):
            generator_loss = F.cross_entropy(functional_call(classifier, fixed, (attacked, rng)), targets)
        return generator_loss + cross_entropies(classifier, clean, attacked.detach(), labels, rng, self.clean_share)
