"""Benchmarks on this machine: where their data and weights are, and whether they are the right ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.benchmarks.named import Benchmark
from bench.contracts import InputError
from bench.engine.setting import Setting, model_text, split_weights
from bench.engine.testbed import Testbed, testbed_of
from bench.records.schema import Cell


@dataclass(frozen=True)
class Inputs:
    """Where the inputs of a benchmark are; None for those that it names itself.

    Attributes:
        dataset, model: their texts.
        weights: a file with the model's weights.
        device: where torch computes.
    """

    dataset: str | None = None
    model: str | None = None
    weights: Path | None = None
    device: str = "cpu"

    def setting(self, benchmark: Benchmark, seed: int) -> Setting:
        """The setting of a benchmark's cells of one seed."""
        model, weights = split_weights(self.model or benchmark.model)
        return Setting(
            dataset=self.dataset or benchmark.dataset,
            model=model,
            images=benchmark.images,
            goal=benchmark.goal,
            seed=seed,
            weights=weights or self.weights,
            device=self.device,
        )


def check_inputs(benchmark: Benchmark, settings: list[Setting]) -> None:
    """Raises InputError if data or weights are not those of a benchmark."""
    for setting in settings:
        testbed = testbed_of(replace(setting, device="cpu"))  # only another machine may have the device
        if not benchmark.has_data(testbed.name):
            raise InputError(
                f"The benchmark {benchmark.name!r} is about {' or '.join(benchmark.about.data)}, but the data set is "
                f"{testbed.name}. If a folder holds such images, say so with name=, as in folder:PATH,name=NAME."
            )
        if not testbed.bare.trained:
            source = f" ({benchmark.about.weights})" if benchmark.about.weights else ""
            raise InputError(
                f"The benchmark {benchmark.name!r} needs trained weights, but those of {setting.model} are random. "
                f"Pass them with --weights FILE{source}."
            )


def cells_on(benchmark: Benchmark, testbed: Testbed, defense: str) -> Iterator[Cell]:
    """The cells of a defense on these data and with this model."""
    yield from benchmark.cells(testbed.name, model_text(testbed.setting)[0], defense)
