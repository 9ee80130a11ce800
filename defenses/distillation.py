"""Defensive distillation: a network learns another network's soft answers at a high temperature.

Papernot, McDaniel, Wu, Jha, Swami, "Distillation as a Defense to Adversarial Perturbations against Deep Neural
Networks" (arXiv 1511.04508); paper 004 defends with it against FGSM on MNIST.

    teacher     CE(softmax(z / T), y)
    student     CE(softmax(z' / T), softmax(z / T)),     the same architecture
    answer      z', that is, at T = 1

Departure: z = T · g with g the given architecture, while in the papers z = g. Both losses have the same minima, but the
papers' networks first have to make their logits T times as large: after four epochs on `photos` at ten times our
learning rate they were only twice as large, and the answers worse. With T · g, the temperature cancels in training.

Its effect on attacks is known (Carlini and Wagner, arXiv 1608.04644): at T = 1 the logits are T times as far apart as
in training, the softmax saturates, and the gradient of the cross-entropy is zero in float32. The sign of zero is zero,
so FGSM does not change the image, which explains the flat row of paper 004's Table XIV. Hence the views of an adaptive
attacker:

    defended    z', the actual answer: the papers' attacker, whose zero gradients are counted in the record
    tempered    z' / T
    margin      z' divided by the lead of its best class, as a constant: a softmax that never saturates, whose
                gradient is mostly that of the margin between the best two classes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.contracts import Artifact, Classifier, Examples, Images, Logits, Streams, Wrapped, answers

from ._examples import packed
from ._ranges import within
from ._training import Trained, trained


@dataclass(frozen=True)
class Distillation(Trained):
    """Defensive distillation: learns another network's soft answers at a high temperature.

    Attributes:
        temperature: T, at least 1.
        attacker: `informed` for all views of the attacker, `plain` for the model's own answers only, as in paper 004.
    """

    temperature: float = 100.0
    attacker: Literal["informed", "plain"] = "informed"

    title = "Defensive distillation"
    paper = "Papernot et al. 2016, arXiv 1511.04508"
    presets = {
        "quick": {"epochs": 2},
        "paper": {"start": "scratch", "epochs": 50, "training_images": 50_000, "shift": 0, "mirror": False},
        "mnist": {"start": "scratch", "epochs": 10, "training_images": 50_000, "shift": 0, "mirror": False},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        within("a temperature", self.temperature, 1, 1e4, "100 is the paper's")

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The student's weights."""
        images, labels, streams = self.examples(training, rng)
        start = self.initial_network
        teacher, student = (start(model, images, streams.derive(name)) for name in ("teacher", "student"))
        self.train(teacher, images, labels, training, streams.derive("teacher"), loss=self.loss, during=(0, 0.5))
        soft = answers(teacher, images, streams).softmax(1)
        self.train(student, images, soft, training, streams.derive("student"), loss=self.loss, during=(0.5, 1))
        return packed(student)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The student at T = 1."""
        return _Scaled(trained(model, learned), self.temperature)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The student's answers, those at T, and logits that never saturate a softmax."""
        student = trained(model, learned)
        views: dict[str, Classifier] = {"defended": _Scaled(student, self.temperature)}
        return views if self.attacker == "plain" else views | {"tempered": student, "margin": _Scaled(student, None)}


class _Scaled(Wrapped):
    """A classifier with scaled logits: by a factor, or so that the best class leads by one."""

    def __init__(self, model: Classifier, factor: float | None) -> None:
        super().__init__(model)
        self.factor = factor

    def forward(self, images: Images, rng: Streams) -> Logits:
        """The scaled logits; a lead is a constant to the gradient."""
        logits = self.model(images, rng)
        if self.factor is not None:
            return logits * self.factor
        best, second = logits.detach().topk(2).values.unbind(1)
        return logits * (1 / (best - second).clamp_min(1e-6)[:, None])
