"""Records -> what stands beside a value of a paper: a number and where it comes from, or the command that gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from bench.core.text import plain, signed
from bench.papers import training_time as pace
from bench.papers.match import Asked, accepts, at, fits, plainness
from bench.papers.reported import Place, Query
from bench.records import metrics
from bench.records.metrics import Estimate
from bench.records.schema import Cell, Facts, Latency, Outcome
from bench.report.boards import make_boards
from bench.report.format import Shown, failed, share
from bench.report.grouping import Sample, settle

Reading = Callable[..., Estimate | None]
BATCH = 32
"""Times are of batches of this size."""


def _complement(measure: Reading) -> Reading:
    def error(*seeds: Facts) -> Estimate | None:
        found = measure(*seeds)
        return None if found is None else Estimate(1 - found.value, 1 - found.high, 1 - found.low, found.n)

    return error


MEASURES: dict[str, Reading] = {
    **metrics.MEASURES,
    "clean_error": _complement(metrics.clean_accuracy),
    "attacked_error": _complement(metrics.attacked_accuracy),
}
"""What is read from the facts of a cell, as shares."""
TIMES: dict[str, Callable[[Mapping[str, float]], tuple[float, float, float]]] = {
    "latency": lambda ms: (ms["defended"], ms["defended_low"], ms["defended_high"]),
    "latency_added": lambda ms: (50 * (ms["defended"] - ms["bare"]), math.nan, math.nan),
    "latency_increase": lambda ms: (100 * (ms["ratio"] - 1), math.nan, math.nan),
}
"""What is read from a timing, with quartiles or NaN: ms an image; seconds more for 50,000 images; percent more."""
TRAINING = "training_increase"
"""How many percent longer a training takes than the control's."""


@dataclass(frozen=True)
class Source:
    """Where a measured number comes from; numbers with one source share a letter.

    Attributes:
        words: the records, in words.
        differs: (what, here, in the paper) for each thing that is not the same.
    """

    words: str
    differs: tuple[tuple[str, str, str], ...]

    @property
    def sentence(self) -> str:
        """All of it in one line."""
        told = [f"{what}: {here}; in the paper {there or 'not stated'}" for what, here, there in self.differs]
        return plain(f"{self.words}. " + (f"What differs: {'. '.join(told)}." if told else "Nothing else differs."))


@dataclass(frozen=True)
class Beside:
    """What stands beside one value of a paper.

    Attributes:
        shown: the measured number or the status of a failed cell, in the unit of the table; None where there is none.
        numbers: value and interval in that unit, NaN where unknown.
        n: over how many images.
        source: where it comes from.
        flags: ids of the red flags of its row on the board, which are about attacks; none for clean images.
        cell: the cell that is closest to the paper, for its command; None where nothing can be measured.
        found: the cell that was measured.
        why_not: why nothing can be measured.
    """

    shown: Shown | None = None
    numbers: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    n: int = 0
    source: Source | None = None
    flags: tuple[str, ...] = ()
    cell: Cell | None = None
    found: Cell | None = None
    why_not: str = ""


class Measured:
    """All records, sorted for queries."""

    def __init__(self, outcomes: Iterable[Outcome], latencies: Iterable[Latency]) -> None:
        self._outcomes, self._latencies = list(outcomes), list(latencies)
        every = self._outcomes
        boards, homeless = settle(every)
        samples = [one for group in boards.values() for one in group.values()]
        self._samples = samples + [Sample((one,)) for one in homeless]
        self._flags = _red(every, self._latencies)
        self._defenses = {one.cell.defense: one.defense for one in every if one.defense}
        self._places: dict[Place, frozenset[int]] = {}
        self._texts: dict[tuple[Asked, str], frozenset[int]] = {}

    def beside(self, query: Query, places: Mapping[str, Place]) -> Beside:
        """What stands beside the value that asks this."""
        if query.unmeasured:
            return Beside(why_not=query.unmeasured)
        asked = [places[name] for name in query.settings]
        first = asked[0]
        cell = Cell(
            dataset=first.dataset,
            model=first.model,
            attack=query.attack[0],
            defense=query.defense[0],
            tier=query.tier[0],  # type: ignore[arg-type]  # checked by Cell
            goal=query.goal[0],
            images=first.images,
        )
        if query.measure == TRAINING:
            found = self._trained(query, asked)
        else:
            found = self._timed(query, asked) if query.measure in TIMES else self._counted(query, asked)
        return replace(found or Beside(), cell=cell)

    def _counted(self, query: Query, asked: Sequence[Place]) -> Beside | None:
        """From the best of the samples that fit: with numbers, close to the paper, with few other parameters."""
        sets = [[self._at(place) for place in asked]]
        sets += [[self._accepted(one, text) for text in getattr(query, one)] for one in get_args(Asked)]
        fitting = set.intersection(*(set().union(*one) for one in sets))
        if not fitting:
            return None

        def far(number: int) -> tuple[bool, list[int], tuple[int, int, int, str]]:
            closest = [next(place for place, known in enumerate(one) if number in known) for one in sets]
            return not self._samples[number].facts, closest, plainness(self._samples[number])

        best = min(fitting, key=far)
        return self._told(self._samples[best], query, asked[far(best)[1][0]])

    def _told(self, sample: Sample, query: Query, place: Place) -> Beside:
        cell = sample.outcomes[0].cell
        facts = list(sample.facts.values())
        estimate = MEASURES[query.measure](*facts) if facts else None
        source = Source(_words(sample, facts), _differs(query, place, _attacker(sample)))
        if not facts:
            shown = failed(sample.failures[0].status, sample.failures[0].reason)
            return Beside(shown, source=source, found=cell)
        if estimate is None or estimate.n == 0:
            return Beside(Shown(title="No image counts here."), source=source, found=cell)
        scale = 1 if query.unit == "shares" else 100
        numbers = (scale * estimate.value, scale * estimate.low, scale * estimate.high)
        flags = () if query.measure.startswith("clean") else self._flags.get(cell, ())
        return Beside(_as(query.unit, estimate), numbers, estimate.n, source, flags, found=cell)

    def _timed(self, query: Query, asked: Sequence[Place]) -> Beside | None:
        for place, wanted in product(asked, query.defense):
            for one in self._latencies:
                times = one.batches.get(BATCH)
                at_place = at(place, one.dataset, one.model)
                if times and at_place and fits(wanted, one.defense, self._defenses.get(one.defense)):
                    numbers = TIMES[query.measure](times)
                    words = f"{one.dataset} · {one.model} · {plain(one.machine)} · batches of {BATCH}"
                    source = Source(plain(words), _differs(query, place, ""))
                    return Beside(_time(numbers), numbers, BATCH, source)
        return None

    def _trained(self, query: Query, asked: Sequence[Place]) -> Beside | None:
        for place, wanted in product(asked, query.defense):
            here = [one for one in self._outcomes if at(place, one.cell.dataset, one.cell.model)]
            found = pace.increase(here, wanted)
            if found:
                machine, percent = found
                words = f"{place.dataset} · {place.model} · trained on {machine} · control: {pace.CONTROL}"
                numbers = (percent, math.nan, math.nan)
                return Beside(_time(numbers), numbers, source=Source(plain(words), _differs(query, place, "")))
        return None

    def _at(self, place: Place) -> frozenset[int]:
        """The samples of some data and model."""
        if place not in self._places:
            cells = enumerate(one.outcomes[0].cell for one in self._samples)
            self._places[place] = frozenset(number for number, one in cells if at(place, one.dataset, one.model))
        return self._places[place]

    def _accepted(self, asked: Asked, text: str) -> frozenset[int]:
        """The samples that are what a text asks for."""
        if (asked, text) not in self._texts:
            every = enumerate(self._samples)
            self._texts[asked, text] = frozenset(number for number, one in every if accepts(asked, text, one))
        return self._texts[asked, text]


def _words(sample: Sample, facts: Sequence[Facts]) -> str:
    cell = sample.outcomes[0].cell
    seeds = ", ".join(str(one) for one in sorted(sample.facts) or [cell.seed])
    counts = sorted({len(one.index) for one in facts})
    images = f"{counts[0]} images" if counts else "no images"
    words = (cell.dataset, cell.model, _attacker(sample), images, f"seed{'s' if ',' in seeds else ''} {seeds}")
    return plain(" · ".join(words))


def _attacker(sample: Sample) -> str:
    """The attack with its budget, in words."""
    cell = sample.outcomes[0].cell
    budget = sample.record.traits.get("budget") if sample.record else None
    stated = f" ({budget})" if budget else ""
    return plain(f"{cell.attack}{stated}, {cell.goal}, {cell.tier}, effort {cell.effort}")


def _differs(query: Query, place: Place, attacker: str) -> tuple[tuple[str, str, str], ...]:
    """What is not as in the paper; an attack is never quite the same."""
    clean = query.measure.startswith("clean") or query.measure in (*TIMES, TRAINING)
    pairs = [("data", place.data, query.data), ("model", place.network, query.model)]
    pairs += [] if clean else [("attack", attacker, query.attacker)]
    return tuple((what, here, there) for what, here, there in pairs if here != there)


def _as(unit: str, estimate: Estimate) -> Shown:
    """The number in the unit of the table."""
    if unit != "shares":
        return share(estimate)
    text, low, high = (f"{one:.4f}" for one in (estimate.value, estimate.low, estimate.high))
    return Shown(text, f"{low}–{high}", value=estimate.value, title=f"{text} of {estimate.n} images")


def _time(numbers: tuple[float, float, float]) -> Shown:
    value, low, high = numbers
    interval = "" if math.isnan(low) else f"{low:.3g}–{high:.3g}"
    return Shown(f"{value:.3g}" if abs(value) < 100 else signed(value), interval, value=value)


def _red(outcomes: Sequence[Outcome], latencies: Sequence[Latency]) -> dict[Cell, tuple[str, ...]]:
    """The first cell of each sample -> ids of the red flags that its row has on the board."""
    boards, _ = make_boards(outcomes, latencies)
    raised = {
        (board.setting, row.defense.key): tuple(flag.id for flag in row.badges if flag.colour == "red")
        for board in boards
        for row in board.rows
    }
    settings, _ = settle(outcomes)
    return {
        sample.outcomes[0].cell: raised.get((setting, sample.defense), ())
        for setting, samples in settings.items()
        for sample in samples.values()
    }
