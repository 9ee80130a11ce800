"""Cost of PatchCleanser's rounds: the first relative to its forward passes, the second to trying every pair."""

from __future__ import annotations

import importlib
import itertools
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts import Classifier, Streams
from bench.engine.setting import Setting
from bench.engine.testbed import testbed_of
from bench.memory import piece_of

COUNT, REPEATS = 16, 3


class Convolutions(Classifier):
    """A small network, since masking matters less for a large one."""

    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64, 64)
        layers: list[nn.Module] = []
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            layers += [nn.Conv2d(inputs, outputs, 3, 1 + (number > 0), 1), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def test_the_first_round_costs_little_more_than_its_masked_forwards(benchmark: Any) -> None:
    module = importlib.import_module("bench.defenses.patchcleanser")
    defense, model = module.PatchCleanser(), Convolutions()
    images = torch.rand(COUNT, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    rng = Streams.of(0, torch.arange(COUNT))
    hidden = defense.hiding(32, 32)
    masking = module._Masking(defense, model)
    masked = torch.where(hidden[None, :, None], torch.tensor(0.5), images[:, None]).flatten(0, 1)
    owners = torch.arange(COUNT).repeat_interleave(len(hidden))
    piece = piece_of(images.shape)

    def forwards() -> Tensor:
        parts = range(0, len(masked), piece)
        return torch.cat([model(masked[part : part + piece], rng[owners[part : part + piece]]) for part in parts])

    def first_round() -> Tensor:
        logits: Tensor = masking.under(images, hidden, rng)
        return logits

    def seconds(work: Any) -> float:
        started = perf_counter()
        work()
        return perf_counter() - started

    with torch.no_grad():
        assert torch.equal(first_round().flatten(0, 1), forwards())
        pairs = [(seconds(first_round), seconds(forwards)) for _ in range(REPEATS)]
        benchmark.pedantic(first_round, rounds=REPEATS)
    ratio = min(pair[0] for pair in pairs) / min(pair[1] for pair in pairs)
    benchmark.extra_info["first round / its masked forwards (at most 1.1)"] = round(ratio, 3)
    print(f"\nPatchCleanser: first round / its {len(masked)} masked forwards = {ratio:.3f} (goal: at most 1.1)")  # noqa: T201


def test_the_second_round_asks_for_few_of_the_pairs(benchmark: Any) -> None:
    module = importlib.import_module("bench.defenses.patchcleanser")
    testbed = testbed_of(Setting("photos", "photos-cnn", images=48))
    defense = module.PatchCleanser()
    defended = module._DoubleMasking(defense, testbed.bare)
    hidden = defense.hiding(32, 32)
    asked = 0

    def count(model: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        nonlocal asked
        asked += len(logits)

    with torch.no_grad():
        votes = defended.under(testbed.images, hidden, testbed.streams).argmax(2)
        hook = testbed.bare.register_forward_hook(count)
        benchmark.pedantic(lambda: defended(testbed.images, testbed.streams), rounds=1)
        hook.remove()
    pairs = int((votes != votes.mode(1).values[:, None]).sum()) * len(hidden)
    assert pairs
    second = asked - votes.numel()
    benchmark.extra_info["second round / all of its pairs"] = round(second / pairs, 3)
    print(f"\nPatchCleanser: its second round asks for {second} of {pairs} pairs")  # noqa: T201
