"""Latency of a bare and a defended model, measured side by side in one run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from statistics import median, quantiles
from time import perf_counter

import torch

from bench.contracts import Classifier, Images, Streams
from bench.engine.inputs import latency_fingerprints, machine_name
from bench.engine.interference import unchanged
from bench.engine.plan import LatencyTask
from bench.engine.protect import protect
from bench.engine.testbed import testbed_of
from bench.records.schema import Latency

BATCHES = (1, 32)
REPEATS = 20
LONG = 20.0
"""Seconds after which a slow pair is not repeated any more; five repeats are made in any case."""


def measure_latency(task: LatencyTask, progress: Callable[[float, str], None]) -> Latency:
    """The latency record of one defense, at batch sizes 1 and 32, on the evaluation images.

    Args:
        task: the defense, and where its inputs are on this machine.
        progress: called with the fraction done and what is being done.
    """
    testbed = testbed_of(task.setting)
    protected = protect(testbed, task.defense, progress)
    defended = protected.defense.protect(testbed.bare, protected.learned)  # both as they are, not prepared
    batches = {}
    with unchanged(testbed, [protected.defense], defended, protected.learned):
        for place, size in enumerate(BATCHES):
            progress(place / len(BATCHES), "timing")
            rows = torch.arange(size, device=testbed.device) % len(testbed)
            batches[size] = side_by_side(testbed.bare, defended, testbed.images[rows], testbed.streams[rows])
    return Latency(
        dataset=task.dataset,
        model=task.model,
        defense=task.defense,
        batches=batches,
        machine=machine_name(task.setting.device),
        fingerprints=latency_fingerprints(protected.defense, testbed, task.setting.device),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def side_by_side(bare: Classifier, defended: Classifier, images: Images, rng: Streams) -> dict[str, float]:
    """Median and quartiles in ms an image of two models, called in turn, after a warm-up of each.

    `ratio` is the median of the ratios of neighbouring calls: what disturbs the machine for a while
    disturbs both. `spread` is the 95th percentile over the median of the defended model.
    """
    times: dict[str, list[float]] = {"bare": [], "defended": []}
    models = {"bare": bare, "defended": defended}
    for model in models.values():
        _timed(model, images, rng)
    started = perf_counter()
    while len(times["bare"]) < REPEATS and (len(times["bare"]) < 5 or perf_counter() - started < LONG):
        for name, model in models.items():
            times[name].append(1000 * _timed(model, images, rng) / len(images))
    numbers: dict[str, float] = {"repeats": len(times["bare"])}
    for name, values in times.items():
        low, _, high = quantiles(values, n=4)
        numbers |= {name: median(values), f"{name}_low": low, f"{name}_high": high}
    numbers["ratio"] = median(after / before for before, after in zip(times["bare"], times["defended"], strict=True))
    numbers["spread"] = quantiles(times["defended"], n=20)[-1] / numbers["defended"]
    return {name: round(value, 4) for name, value in numbers.items()}


def _timed(model: Classifier, images: Images, rng: Streams) -> float:
    """Seconds of one call, with the device's queue empty before and after."""
    wait = torch.cuda.synchronize if images.is_cuda else _nothing
    with torch.no_grad():
        wait()
        started = perf_counter()
        model(images, rng)
        wait()
    return perf_counter() - started


def _nothing() -> None:
    """A CPU has no queue."""
