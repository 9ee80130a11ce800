"""Cost of a step of `patch` and `lavan`, relative to one forward and backward pass of the model; the goal is 1.10."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bench.contracts import Goal, Model, Streams, UniversalAttack
from bench.models import Net
from bench.models.nets import SmallResNet
from bench.plugins.registry import make_attack

IMAGES, ROUNDS = 64, 9


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.mark.parametrize(
    "text", ["patch:restarts=1", "patch:restarts=1,rotation=0,scale=1:1", "lavan:confidence=1,rounds=1,places=1"]
)
def test_step_over_bare_forward_and_backward(benchmark: Any, text: str) -> None:
    net = Net(SmallResNet(10), 10).eval().requires_grad_(False)
    rng = Streams.of(0, torch.arange(IMAGES))
    images = rng.derive("images").uniform(3, 32, 32)
    goal = Goal(net(images).argmax(1))
    rounds = ROUNDS if benchmark.enabled else 1
    steps = 10 if benchmark.enabled else 2
    attack: Any = make_attack(f"{text},steps={steps}")

    def bare() -> None:
        for _ in range(steps):
            variable = images.clone().requires_grad_()
            torch.autograd.grad(goal.cross_entropy(net(variable)).sum(), variable)

    def attacked() -> None:
        work = attack.learn if isinstance(attack, UniversalAttack) else attack.perturb
        work(Model(net, rng), images, goal, rng)

    bare()
    ratios = [seconds(attacked) / seconds(bare) for _ in range(rounds)]
    benchmark.extra_info["step over bare forward and backward"] = round(statistics.median(ratios), 3)
    benchmark.pedantic(attacked, rounds=1)
