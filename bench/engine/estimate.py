"""How long the tasks of a plan will take here, and in how much memory: from records, and a short timing of the model.

A record says how long an attack took for an image. The time that its model took for an image is in the record of its
latency; the same model, timed here and now, says how much faster or slower this machine is. Where no record has the
attack, its steps, queries and training images give a guess.
"""

from __future__ import annotations

import os
import time
from collections.abc import Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from bench.contracts import Attack, UniversalAttack, answers
from bench.core.peak_memory import PeakMemory, resident_mib
from bench.engine.plan import UNDEFENDED, CellTask, LatencyTask, Plan, Task
from bench.engine.run import DRAWS
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.plugins.registry import make_attack, make_defense
from bench.records.schema import Cell, Latency, Outcome
from bench.records.store import Store

_STEP, _JUDGEMENTS, _TIMINGS = 3.0, 4.0, 700.0
"""Passes of the model, about: in a step of a gradient; for an image when it is judged; in the timing of a defense."""

_TIMED = 0.5
"""Seconds that the model is timed."""

_START = 5.0
"""Seconds until a worker computes, on systems that do not tell how long this process took."""

Shared = tuple[object, ...]
"""What names the images of a column, or a training."""


@dataclass(frozen=True)
class Forecast:
    """What a plan costs.

    Attributes:
        seconds: of each task. Images and trainings that several share count for the first of them.
        own: of each task, without what it shares with others.
        shared: of each thing that a task shares with others: images and trainings.
        rough: tasks without a similar record, whose cost is a guess.
        start: seconds until a worker computes.
        mib: memory of a worker.
    """

    seconds: Mapping[Task, float]
    own: Mapping[Task, float]
    shared: Mapping[Task, Mapping[Shared, float]]
    rough: frozenset[Task]
    start: float
    mib: float

    def total(self, workers: int) -> float:
        """Seconds until so many workers have done everything."""
        times = self.seconds.values()
        return self.start + max(sum(times) / max(1, workers), max(times)) if times else 0.0

    def needed(self, task: Task, made: Container[Shared]) -> float:
        """Seconds of a task where no more is there of what it shares with others than this."""
        shared = self.shared.get(task, {})
        return self.own[task] + sum(seconds for thing, seconds in shared.items() if thing not in made)


@dataclass(frozen=True)
class _Here:
    """A testbed on this machine: its number of images, the seconds of a pass for each, and the memory of a step."""

    images: int
    forward: float
    mib: float


def estimate(plan: Plan, store: Store) -> Forecast:
    """What the tasks of a plan cost, by the records of a store."""
    if not plan.tasks:
        return Forecast({}, {}, {}, frozenset(), 0.0, 0.0)
    known, here = _Known(store.outcomes(), store.latencies()), dict[tuple[str, str], _Here]()
    seconds, own, rough = dict[Task, float](), dict[Task, float](), set[Task]()
    shared: dict[Task, Mapping[Shared, float]] = {}
    made: set[Shared] = {_column(record.cell) for record in plan.done}
    for task in plan.tasks:
        dataset, model, defense = _names(task)
        place = here.get((dataset, model)) or here.setdefault((dataset, model), _timed(_testbed(task.setting)))
        if isinstance(task, LatencyTask):
            seconds[task] = own[task] = _TIMINGS * place.forward * (1 + (known.ratio(dataset, model, defense) or 1))
            continue
        own[task], shared[task], guessed = _cost(task, known, place)
        new = shared[task].keys() - made
        seconds[task] = own[task] + sum(shared[task][thing] for thing in new)
        made |= new
        if guessed:
            rough.add(task)
    peak = max(
        [known.training_mib.get(_names(task)[2], 0.0) for task in plan.tasks] + [one.mib for one in here.values()]
    )
    return Forecast(seconds, own, shared, frozenset(rough), _age(), resident_mib() + peak)


def _cost(task: CellTask, known: _Known, here: _Here) -> tuple[float, dict[Shared, float], bool]:
    """Seconds of a cell of its own, and of each thing that it shares with others; whether they are a guess."""
    cell, guessed = task.cell, False
    defense = known.defense(task.setting.local(cell.defense))
    ratio = known.ratio(cell.dataset, cell.model, cell.defense) or 1
    bare = known.crafting(cell, "", here)
    if bare is None:
        bare, guessed = _guess(make_attack(task.setting.local(cell.attack), cell.effort), here), True
    own, shared = _JUDGEMENTS * here.images * here.forward * ratio, {_column(cell): bare}
    if cell.tier == "adaptive" and cell.defense != UNDEFENDED:
        both = known.crafting(cell, cell.defense, here)
        draws = DRAWS[cell.effort] if getattr(defense, "random", False) else 1
        own += bare * ratio * draws if both is None else max(both - bare, 0)
        guessed = guessed or both is None
    if defense.learns:
        took = known.training(cell.defense, here)
        shared["training", cell.dataset, cell.model, cell.defense, cell.seed] = took or 0.0
        guessed = guessed or took is None
    return own, shared, guessed


def _guess(attack: Attack, here: _Here) -> float:
    """Seconds of an attack that no record has, by its steps, queries and training images; 0 if it says nonsense."""
    try:
        passes = attack.steps * (_STEP if attack.access == "gradients" else 1) or getattr(attack, "queries", 1)
        learns = isinstance(attack, UniversalAttack) and attack.learns
        return float(passes) * here.forward * (attack.training_images if learns else here.images)  # type: ignore[attr-defined]  # universal
    except Exception:  # a plugin may fail in any way; the task will say how
        return 0.0


class _Known:
    """What records say about costs, in seconds, or in passes of the model where the record's machine was timed."""

    def __init__(self, outcomes: Iterable[Outcome], latencies: Iterable[Latency]) -> None:
        self._latencies = {(one.dataset, one.model, one.defense): one for one in latencies if one.status == "ok"}
        self._crafting: dict[tuple[str, ...], list[tuple[float, float, float | None]]] = {}
        self._training: dict[str, list[tuple[float, float | None]]] = {}
        self.training_mib: dict[str, float] = {}
        self.defense = cache(make_defense)
        for outcome in outcomes:
            if outcome.facts:
                self._add(outcome.cell, len(outcome.facts.index), outcome)

    def _add(self, cell: Cell, images: int, outcome: Outcome) -> None:
        forward = self._forward(cell.dataset, cell.model)
        crafted = outcome.seconds.get("attack", 0.0) / images, outcome.seconds.get("learn", 0.0), forward
        through = cell.defense if cell.tier == "adaptive" and cell.defense != UNDEFENDED else ""
        for place in (("", ""), (cell.dataset, cell.model)):
            self._crafting.setdefault((*place, cell.attack, cell.effort, through), []).append(crafted)
        if took := outcome.training.get("seconds"):
            self._training.setdefault(cell.defense, []).append((took, forward))
            peaks = self.training_mib.get(cell.defense, 0.0), outcome.training.get("peak_mib", 0.0)
            self.training_mib[cell.defense] = max(peaks)

    def _forward(self, dataset: str, model: str) -> float | None:
        """Seconds of a pass for each image on the machine of the records."""
        record = self._latencies.get((dataset, model, UNDEFENDED))
        return record.batches[max(record.batches)]["bare"] / 1000 if record else None

    def ratio(self, dataset: str, model: str, defense: str) -> float | None:
        """Time of the defended model over that of the bare one: on these data, or else on any."""
        same = [self._latencies[key] for key in self._latencies if key == (dataset, model, defense)]
        others = [record for key, record in self._latencies.items() if key[2] == defense]
        return next((one.batches[max(one.batches)].get("ratio") for one in same + others), None)

    def crafting(self, cell: Cell, through: str, here: _Here) -> float | None:
        """Seconds for images through the bare model, or through it and a defense; of these data, or else of any."""
        for place in ((cell.dataset, cell.model), ("", "")):
            if known := self._crafting.get((*place, cell.attack, cell.effort, through)):
                return median((each * here.images + learn) * _slower(here, forward) for each, learn, forward in known)
        return None

    def training(self, defense: str, here: _Here) -> float | None:
        """Seconds of training a defense."""
        known = self._training.get(defense)
        return median(took * _slower(here, forward) for took, forward in known) if known else None


def _slower(here: _Here, forward: float | None) -> float:
    return here.forward / forward if forward else 1.0


def _testbed(setting: Setting) -> Testbed:
    """The testbed on its device, or on the CPU if only another machine has such a device."""
    has_gpu = not setting.device.startswith("cuda") or torch.cuda.is_available()
    return testbed_of(setting if has_gpu else replace(setting, device="cpu"))


def _timed(testbed: Testbed) -> _Here:
    """Times passes of the bare model, and measures the memory of a step of a gradient; 0 if the model fails."""
    rows = slice(0, min(testbed.batch_size, len(testbed)))
    images, streams, times = testbed.images[rows], testbed.streams[rows], list[float]()
    peak, begun = PeakMemory(testbed.device), perf_counter()
    with suppress(Exception):  # a network may fail in any way; the tasks will say how
        while not times or perf_counter() - begun < _TIMED:
            started = perf_counter()
            answers(testbed.bare, images, streams)
            if testbed.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(perf_counter() - started)
        changed = images.clone().requires_grad_()
        torch.autograd.grad(testbed.bare(changed, streams).sum(), changed)
    return _Here(len(testbed), median(times or [0.0]) / len(images), peak.mib)


def _names(task: Task) -> tuple[str, str, str]:
    place = task.cell if isinstance(task, CellTask) else task
    return place.dataset, place.model, place.defense


def _column(cell: Cell) -> Shared:
    """The same for cells that share the images crafted on the bare model."""
    return cell.dataset, cell.model, cell.attack, cell.goal, cell.effort, cell.images, cell.seed


def _age() -> float:
    """Seconds since this process began: a worker loads the same."""
    try:
        begun = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - begun
    except (OSError, ValueError, AttributeError):
        return _START
