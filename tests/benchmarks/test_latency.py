"""The latency harness, tested on a module that takes a known time."""

from __future__ import annotations

import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.contracts import Classifier, Images, Streams
from bench.engine import latency as clock


class Sleeper(Classifier):
    """Takes a known time for each call."""

    num_classes = 2

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, images: Images, rng: Streams) -> torch.Tensor:
        time.sleep(self.seconds)
        return torch.zeros(len(images), 2)


@pytest.mark.parametrize("batch", [1, 32])
def test_the_harness_measures_at_least_the_time_of_a_sleeper(benchmark: BenchmarkFixture, batch: int) -> None:
    images, rng = torch.zeros(batch, 3, 8, 8), Streams.of(0, torch.arange(batch))
    found = benchmark.pedantic(clock.side_by_side, args=(Sleeper(0.01), Sleeper(0.02), images, rng), rounds=1)
    benchmark.extra_info |= {"ms a call, true 20": round(found["defended"] * batch, 2), "ratio, true 2": found["ratio"]}
    assert found["repeats"] == clock.REPEATS
    assert found["defended_low"] <= found["defended"] <= found["defended_high"]
    assert found["defended"] * batch >= 20  # a sleeper never wakes early, but may wake late
