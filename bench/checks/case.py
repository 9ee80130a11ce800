"""What contract checks work on: toy images, a toy classifier, and what the plugin made of them."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor, nn

from bench.contracts import (
    Artifact,
    Attack,
    Classifier,
    Defense,
    Goal,
    Images,
    Model,
    Streams,
    UniversalAttack,
    answers,
)
from bench.data.dataset import Dataset, Split
from bench.engine.protect import Learned, learn
from bench.engine.setting import InMemory, Setting
from bench.engine.testbed import Testbed

CLASSES, SIDE = 4, 32
COUNT, TRAINING_COUNT = 6, 24


class BrokenContractError(Exception):
    """A plugin does not keep its contract; says what was expected and what came."""


def expect(kept: bool | Tensor, otherwise: str) -> None:
    """Raises BrokenContractError with `otherwise` unless `kept`."""
    if not bool(kept):
        raise BrokenContractError(otherwise)


class ToyClassifier(Classifier):
    """A small smooth network with fixed weights; in float64 its answers hardly depend on the batch."""

    num_classes = CLASSES

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        shape = (8, 3, 5, 5)
        self.filters = nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False, device="meta")
        filters = torch.randn(shape, generator=rng, dtype=torch.float64) / 4
        head = torch.randn(8 * 16, CLASSES, generator=rng, dtype=torch.float64)
        self.filters.weight = nn.Parameter(filters.to(dtype), requires_grad=False)
        self.head = nn.Parameter(head.to(dtype), requires_grad=False)

    def forward(self, images: Images, rng: Streams) -> Tensor:
        """Logits of shape (n, 4)."""
        features = self.filters(images.to(self.head.dtype))
        pooled = nn.functional.adaptive_avg_pool2d(torch.tanh(features), 4).flatten(1)
        return (pooled @ self.head) * 2


class Case:
    """What the checks of one plugin share: toy images, a toy classifier, and what the plugin made of them."""

    def __init__(self, plugin: Attack | Defense) -> None:
        self.plugin = plugin
        self.classifier = ToyClassifier()
        self._images = smooth_images(COUNT, torch.float64)
        self.streams = Streams.of(0, torch.arange(COUNT))
        self.labels = answers(self.classifier, self.images, self.streams).argmax(1)
        self.labels[-1] = (self.labels[-1] + 1) % CLASSES  # one image that the classifier gets wrong
        self.goal = Goal(self.labels)

    @property
    def images(self) -> Images:
        """A copy of the toy images, which a plugin may spoil."""
        return self._images.clone()

    @cached_property
    def testbed(self) -> Testbed:
        """The toy images and classifier as `bench run` has its own: in float32, with training images."""
        training = smooth_images(TRAINING_COUNT, torch.float32)
        labels = answers(self.classifier, training, Streams.of(1, torch.arange(TRAINING_COUNT))).argmax(1)
        dataset = Dataset("toy", tuple("abcd"), _split(training, labels), _split(self.images, self.labels))
        return Testbed(Setting("toy", "toy", memory=InMemory(dataset, ToyClassifier(torch.float32))))

    @property
    def attack(self) -> Attack:
        """The plugin, if it is an attack; a universal one has learned."""
        if not isinstance(self.plugin, Attack):
            raise TypeError("a defense is no attack")
        return self.plugin.given(self.artifact) if isinstance(self.plugin, UniversalAttack) else self.plugin

    @property
    def defense(self) -> Defense:
        """The plugin, if it is a defense."""
        if not isinstance(self.plugin, Defense):
            raise TypeError("an attack is no defense")
        return self.plugin

    @cached_property
    def artifact(self) -> Artifact:
        """What a universal attack learns from the toy images that the classifier gets right."""
        attack = self.plugin
        if not isinstance(attack, UniversalAttack):
            return {}
        rng = self.streams[:-1].derive("learning")
        return attack.learn(Model(self.classifier, rng), self.images[:-1], self.goal[:-1], rng)

    @cached_property
    def learned(self) -> Learned:
        """What a defense learns, from the same cache as in `bench run`."""
        return learn(self.defense, self.testbed, lambda share, doing: None)

    @cached_property
    def defended(self) -> Classifier:
        """The defended toy classifier."""
        return self.defense.protect(self.classifier, self.learned.artifact)

    @property
    def views(self) -> dict[str, Classifier]:
        """What an adaptive attacker differentiates."""
        return self.defense.attacker_views(self.classifier, self.learned.artifact)

    @cached_property
    def first_attack(self) -> tuple[Images, Model]:
        """Adversarial images of the toy images, and the model that was asked."""
        return self.attack_again()

    def attack_again(self, rows: slice = slice(None)) -> tuple[Images, Model]:
        """The same for some of the toy images, computed again."""
        rng = self.streams[rows]
        model = Model(self.classifier, rng.derive("model"))
        adversarial = self.attack(model, self.images[rows], self.goal[rows], rng.derive("attack"))
        return adversarial, model


def smooth_images(count: int, dtype: torch.dtype) -> Images:
    """Random images on the 8-bit grid with large and small structures, 3×32×32."""
    rng = torch.Generator().manual_seed(7)
    coarse = torch.rand((count, 3, 5, 5), generator=rng, dtype=torch.float64)
    fine = torch.rand((count, 3, SIDE, SIDE), generator=rng, dtype=torch.float64)
    smooth = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return ((0.85 * smooth + 0.15 * fine) * 255).round().div(255).to(dtype)


def _split(images: Images, labels: Tensor) -> Split:
    pixels = (images * 255).round().to(torch.uint8)
    return Split(labels, lambda indices: pixels[indices])
