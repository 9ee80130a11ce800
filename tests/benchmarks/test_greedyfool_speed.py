"""What a batch brings `greedyfool`: images a second in a batch of 16 over one at a time; the goal is 8."""

from __future__ import annotations

import statistics
import time
from typing import Any

import pytest
import torch

from bench.contracts import Goal, Model, Streams
from bench.datasets import load_dataset
from bench.models import load_model
from bench.registry import make_attack
from bench.split import choose


@pytest.mark.parametrize("text", ["greedyfool:pixels=none", "greedyfool:pixels=none,blocks=false"])
def test_images_a_second_in_a_batch_of_16_over_one_at_a_time(benchmark: Any, text: str) -> None:
    data = load_dataset("photos")
    classifier = load_model("photos-cnn", num_classes=len(data.classes), image_shape=data.image_shape)
    indices = choose(data.test, 16)
    images, goal, rng = data.test.load(indices), Goal(data.test.labels[indices]), Streams.of(0, indices)
    attack = make_attack(text if benchmark.enabled else f"{text},steps=3,reductions=2")

    def attacked(size: int) -> float:
        started = time.perf_counter()
        for rows in torch.arange(16).split(size):
            attack(Model(classifier, rng[rows]), images[rows], goal[rows], rng[rows])
        return time.perf_counter() - started

    ratios = [attacked(1) / attacked(16) for _ in range(3 if benchmark.enabled else 1)]
    benchmark.extra_info["images a second, 16 over 1"] = round(statistics.median(ratios), 2)
    benchmark.pedantic(lambda: attacked(16), rounds=1)
