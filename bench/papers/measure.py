"""Records -> what to compare a paper's value with: a number and its origin, or the command that measures it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import get_args

from bench.core.text import plain, signed
from bench.papers.match import QueryField, accepts, fits, has_setting, preference
from bench.papers.reported import Query, ReportedSetting
from bench.papers.training_time import training_increase
from bench.records import metrics
from bench.records.format import Formatted, format_failure, format_share
from bench.records.intervals import Estimate
from bench.records.metrics import Design
from bench.records.samples import Sample, group_by_conditions
from bench.records.schema import Cell, Facts, Latency, Outcome

Reading = Callable[..., Estimate | None]
BATCH = 32
"""Times are for batches of this size."""


def _complement(measure: Reading) -> Reading:
    def error(*seeds: Facts, design: Design) -> Estimate | None:
        share = measure(*seeds, design=design)
        return None if share is None else Estimate(1 - share.value, 1 - share.high, 1 - share.low, share.n)

    return error


READINGS: dict[str, Reading] = {
    **metrics.MEASURES,
    "clean_error": _complement(metrics.clean_accuracy),
    "attacked_error": _complement(metrics.attacked_accuracy),
}
"""What the facts of a cell give, as shares."""
TIMINGS: dict[str, Callable[[Mapping[str, float]], tuple[float, float, float]]] = {
    "latency": lambda ms: (ms["defended"], ms["defended_low"], ms["defended_high"]),
    "latency_added": lambda ms: (50 * (ms["defended"] - ms["bare"]), math.nan, math.nan),
    "latency_increase": lambda ms: (100 * (ms["ratio"] - 1), math.nan, math.nan),
}
"""What a timing gives, with quartiles or NaN: ms an image; seconds more for 50,000 images; percent more."""
TRAINING_INCREASE = "training_increase"
"""How many percent longer a training takes than its control."""


@dataclass(frozen=True)
class Origin:
    """Where a measured number comes from; numbers with the same origin share a letter.

    Attributes:
        records: the records, in words.
        differences: (what, here, in the paper) for everything that differs.
    """

    records: str
    differences: tuple[tuple[str, str, str], ...]

    @property
    def sentence(self) -> str:
        """All of it on one line."""
        parts = [f"{what}: {here}; in the paper {there or 'not stated'}" for what, here, there in self.differences]
        return plain(f"{self.records}. " + (f"What differs: {'. '.join(parts)}." if parts else "Nothing else differs."))


@dataclass(frozen=True)
class Measurement:
    """What a paper's value is compared with.

    Attributes:
        number: the measured number, or the status of a failed cell, in the unit of the table; None if not measured.
        interval: value, low and high in that unit, NaN where unknown.
        n: over how many images.
        origin: where it comes from.
        flags: the ids of the red flags of its row on the board; none for clean images, as flags are about attacks.
        wanted: the cell closest to the paper, for its command; None if nothing can be measured.
        measured: the cell that was measured.
        unmeasured: why nothing can be measured.
    """

    number: Formatted | None = None
    interval: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    n: int = 0
    origin: Origin | None = None
    flags: tuple[str, ...] = ()
    wanted: Cell | None = None
    measured: Cell | None = None
    unmeasured: str = ""


class Measurements:
    """All records, sorted for queries."""

    def __init__(
        self, outcomes: Sequence[Outcome], latencies: Sequence[Latency], red_flags: Mapping[Cell, tuple[str, ...]]
    ) -> None:
        """Sorts the records.

        Args:
            outcomes, latencies: all records.
            red_flags: the first cell of a sample -> the ids of the red flags of its row.
        """
        self._outcomes, self._latencies, self._flags = outcomes, latencies, red_flags
        groups, unknown = group_by_conditions(outcomes)
        self._samples = [one for group in groups.values() for one in group.values()]
        self._samples += [Sample((one,)) for one in unknown]
        self._defenses = {one.cell.defense: one.defense for one in outcomes if one.defense}
        self._at: dict[ReportedSetting, frozenset[int]] = {}
        self._fitting: dict[tuple[QueryField, str], frozenset[int]] = {}

    def find(self, query: Query, settings: Mapping[str, ReportedSetting]) -> Measurement:
        """The measurement that a query asks for."""
        if query.unmeasured:
            return Measurement(unmeasured=query.unmeasured)
        candidates = [settings[name] for name in query.settings]
        first = candidates[0]
        cell = Cell(
            dataset=first.dataset,
            model=first.model,
            attack=query.attack[0],
            defense=query.defense[0],
            tier=query.tier[0],  # type: ignore[arg-type]  # checked by Cell
            goal=query.goal[0],
            images=first.images,
        )
        if query.measure == TRAINING_INCREASE:
            measurement = self._trained(query, candidates)
        else:
            measurement = self._timed(query, candidates) if query.measure in TIMINGS else self._read(query, candidates)
        return replace(measurement or Measurement(), wanted=cell)

    def _read(self, query: Query, settings: Sequence[ReportedSetting]) -> Measurement | None:
        """From the best sample that fits: with numbers, close to the paper, with few other parameters."""
        choices = [[self._samples_at(one) for one in settings]]
        choices += [[self._samples_fitting(one, text) for text in getattr(query, one)] for one in get_args(QueryField)]
        fitting = set.intersection(*(set().union(*one) for one in choices))
        if not fitting:
            return None

        def distance(number: int) -> tuple[bool, list[int], tuple[int, int, int, str]]:
            sample = self._samples[number]
            ranks = [next(rank for rank, members in enumerate(one) if number in members) for one in choices]
            return not sample.facts, ranks, preference(sample)

        best = min(fitting, key=distance)
        return self._measurement(self._samples[best], query, settings[distance(best)[1][0]])

    def _measurement(self, sample: Sample, query: Query, setting: ReportedSetting) -> Measurement:
        cell, facts = sample.cell, list(sample.facts.values())
        origin = Origin(_records(sample, facts), _differences(query, setting, _attacker(sample)))
        if not facts:
            first = sample.failures[0]
            return Measurement(format_failure(first.status, first.reason), origin=origin, measured=cell)
        estimate = READINGS[query.measure](*facts, design=sample.design)
        if estimate is None or estimate.n == 0:
            return Measurement(Formatted(title="No image counts here."), origin=origin, measured=cell)
        scale = 1 if query.unit == "shares" else 100
        interval = (scale * estimate.value, scale * estimate.low, scale * estimate.high)
        flags = () if query.measure.startswith("clean") else self._flags.get(cell, ())
        return Measurement(_in_unit(query.unit, estimate), interval, estimate.n, origin, flags, measured=cell)

    def _timed(self, query: Query, settings: Sequence[ReportedSetting]) -> Measurement | None:
        for setting, wanted in product(settings, query.defense):
            for latency in self._latencies:
                times = latency.batches.get(BATCH)
                here = has_setting(setting, latency.dataset, latency.model)
                if times and here and fits(wanted, latency.defense, self._defenses.get(latency.defense)):
                    records = f"{latency.dataset} · {latency.model} · {plain(latency.machine)} · batches of {BATCH}"
                    return _time(TIMINGS[query.measure](times), records, query, setting, BATCH)
        return None

    def _trained(self, query: Query, settings: Sequence[ReportedSetting]) -> Measurement | None:
        for setting, wanted in product(settings, query.defense):
            here = [one for one in self._outcomes if has_setting(setting, one.cell.dataset, one.cell.model)]
            if increase := training_increase(here, wanted, query.control):
                machine, percent = increase
                records = f"{setting.dataset} · {setting.model} · trained on {machine} · control: {query.control}"
                return _time((percent, math.nan, math.nan), records, query, setting)
        return None

    def _samples_at(self, setting: ReportedSetting) -> frozenset[int]:
        """The samples with some data and model, by number."""
        if setting not in self._at:
            cells = enumerate(one.cell for one in self._samples)
            self._at[setting] = frozenset(
                number for number, one in cells if has_setting(setting, one.dataset, one.model)
            )
        return self._at[setting]

    def _samples_fitting(self, field: QueryField, text: str) -> frozenset[int]:
        """The samples that fit a text, by number."""
        if (field, text) not in self._fitting:
            samples = enumerate(self._samples)
            self._fitting[field, text] = frozenset(number for number, one in samples if accepts(field, text, one))
        return self._fitting[field, text]


def _records(sample: Sample, facts: Sequence[Facts]) -> str:
    cell = sample.cell
    seeds = ", ".join(str(one) for one in sorted(sample.facts) or [cell.seed])
    counts = sorted({len(one.index) for one in facts})
    images = f"{counts[0]} images" if counts else "no images"
    words = (cell.dataset, cell.model, _attacker(sample), images, f"seed{'s' if ',' in seeds else ''} {seeds}")
    return plain(" · ".join(words))


def _attacker(sample: Sample) -> str:
    """The attack with its budget, in words."""
    cell = sample.cell
    budget = sample.attack.traits.get("budget") if sample.attack else None
    stated = f" ({budget})" if budget else ""
    return plain(f"{cell.attack}{stated}, {cell.goal}, {cell.tier}, effort {cell.effort}")


def _differences(query: Query, setting: ReportedSetting, attacker: str) -> tuple[tuple[str, str, str], ...]:
    """What is not as in the paper; an attack is never quite the same."""
    clean = query.measure.startswith("clean") or query.measure in (*TIMINGS, TRAINING_INCREASE)
    pairs = [("data", setting.data, query.data), ("model", setting.network, query.model)]
    pairs += [] if clean else [("attack", attacker, query.attacker)]
    return tuple((what, here, there) for what, here, there in pairs if here != there)


def _in_unit(unit: str, estimate: Estimate) -> Formatted:
    """The number in the unit of the table."""
    if unit != "shares":
        return format_share(estimate)
    value, low, high = (f"{one:.4f}" for one in (estimate.value, estimate.low, estimate.high))
    return Formatted(value, f"{low}–{high}", value=estimate.value)


def _time(
    numbers: tuple[float, float, float], records: str, query: Query, setting: ReportedSetting, n: int = 0
) -> Measurement:
    value, low, high = numbers
    text = f"{value:.3g}" if abs(value) < 100 else signed(value)
    number = Formatted(text, "" if math.isnan(low) else f"{low:.3g}–{high:.3g}", value=value)
    return Measurement(number, numbers, n, Origin(plain(records), _differences(query, setting, "")))
