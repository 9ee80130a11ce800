"""Speed-up of `greedyfool` by batching: images per second in a batch of 16 over one at a time; the goal is 8.

No attack gains more than its model does. The bound is the same ratio for the bare passes that the attack asked for,
row for row. On a CPU core it is far below the goal, since stage 2 tries about eleven lengths at once, even for one.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contracts import Classifier, Goal, Model, Streams
from bench.data.dataset import choose
from bench.data.load import load_dataset
from bench.models import load_model
from bench.plugins.registry import make_attack


class Recorder(Classifier):
    """Wraps a classifier and notes the rows of each pass, and whether it was for a gradient."""

    def __init__(self, inside: Classifier) -> None:
        super().__init__()
        self.inside, self.num_classes = inside, inside.num_classes
        self.passes_seen: list[tuple[int, bool]] = []

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        self.passes_seen.append((len(images), images.requires_grad))
        logits: Tensor = self.inside(images, rng)
        return logits


def replayed(classifier: Classifier, image: Tensor, passes: list[tuple[int, bool]]) -> float:
    """Seconds that these passes take on their own."""
    started = time.perf_counter()
    for rows, gradient in passes:
        images = image.expand(rows, -1, -1, -1).clone().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            logits = classifier(images, Streams.of(0, torch.arange(rows)))
            if gradient:
                torch.autograd.grad(logits.sum(), images)
    return time.perf_counter() - started


@pytest.mark.parametrize("text", ["greedyfool:pixels=none", "greedyfool:pixels=none,blocks=false"])
def test_images_a_second_in_a_batch_of_16_over_one_at_a_time(benchmark: Any, text: str) -> None:
    data = load_dataset("photos")
    classifier = load_model("photos-cnn", num_classes=len(data.classes), image_shape=data.image_shape)
    indices = choose(data.test, 16)
    images, goal, rng = data.test.load(indices), Goal(data.test.labels[indices]), Streams.of(0, indices)
    attack = make_attack(text if benchmark.enabled else f"{text},steps=3,reductions=2")

    def attacked(size: int) -> tuple[float, float]:
        recorder = Recorder(classifier)
        started = time.perf_counter()
        for rows in torch.arange(16).split(size):
            attack(Model(recorder, rng[rows]), images[rows], goal[rows], rng[rows])
        return time.perf_counter() - started, replayed(classifier, images[:1], recorder.passes_seen)

    ratios, bounds = [], []
    for _ in range(3 if benchmark.enabled else 1):
        (single, single_bare), (batch, batch_bare) = attacked(1), attacked(16)
        ratios.append(single / batch)
        bounds.append(single_bare / batch_bare)
    benchmark.extra_info["images a second, 16 over 1"] = round(statistics.median(ratios), 2)
    benchmark.extra_info["the same for the bare passes"] = round(statistics.median(bounds), 2)
    benchmark.pedantic(lambda: attacked(16), rounds=1)
