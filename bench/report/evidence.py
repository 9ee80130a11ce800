"""What the records of one board amount to: worst cases, flags and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property

from bench.benchmarks.named import Benchmark, benchmark_names, load_benchmark
from bench.core.text import plain
from bench.records.format import DASH
from bench.records.intervals import PerImage, difference, mean
from bench.records.metrics import Design, per_image
from bench.records.ranking import better_than, ranks
from bench.records.samples import Conditions, Sample, Samples, design_of, worst_case_of
from bench.records.schema import TIERS, Cell, Facts, Latency, Outcome, PluginRecord, Tier
from bench.report.checks import run_checks
from bench.report.flags import Flag, RowRecords, is_bare, is_oracle
from bench.report.summary import group

NO_BETTER = "no better than no defense"
NOT_COMPARED = "not compared"
UPPER_BOUND = "upper bound"
PARTS = ("", NO_BETTER, NOT_COMPARED, UPPER_BOUND)
"""The parts of a board, in order."""


@dataclass(frozen=True)
class Placement:
    """Where a row stands.

    Attributes:
        rank: "" for the model without a defense, "–" for a row without a rank.
        section: one of `PARTS`.
        why: why it has no rank, "" if it has one.
    """

    defense: str
    rank: str
    section: str
    why: str


@cache
def _benchmarks(names: tuple[str, ...]) -> tuple[Benchmark, ...]:
    return tuple(map(load_benchmark, names))


def benchmark_of(cells: Iterable[Cell]) -> Benchmark | None:
    """The benchmark that has any of these cells, None if there is none."""
    benchmarks = _benchmarks(tuple(benchmark_names()))
    return next((one for cell in cells for one in benchmarks if one.has(cell)), None)


class Evidence:
    """The samples under the same conditions, and those on other boards that checks look at."""

    def __init__(
        self,
        conditions: Conditions,
        boards: Mapping[Conditions, Samples],
        times: Mapping[tuple[str, str, str], Latency],
    ) -> None:
        self.conditions, self.samples = conditions, boards[conditions]
        self.benchmark = benchmark_of(sample.cell for sample in self.samples.values())
        self.defenses = sorted({defense for defense, _, _ in self.samples})
        self.records: dict[str, PluginRecord | None] = {
            one: next((sample.defense for sample in self.row(one) if sample.defense), None) for one in self.defenses
        }
        self.times = {one: times.get((conditions.dataset, conditions.model, one)) for one in self.defenses}
        self.worst: dict[tuple[str, Tier], dict[int, Facts]] = {
            (defense, tier): self._worst(defense, tier) for defense in self.defenses for tier in TIERS
        }
        adaptive = any(self.worst[one, "adaptive"] for one in self.defenses if not self.is_bare(one))
        self.basis: Tier = "adaptive" if adaptive else "oblivious"
        self._related = group(
            (defense, sample)
            for other, samples in boards.items()
            if other.scale == conditions.scale
            for (defense, _, _), sample in samples.items()
        )

    @property
    def outcomes(self) -> list[Outcome]:
        """All records."""
        return [outcome for sample in self.samples.values() for outcome in sample.outcomes]

    def attacks(self, tier: Tier) -> list[str]:
        """The attacks of a tier; controls, which ask nothing of the model, come last."""
        control = {attack: sample.access == "none" for (_, attack, one), sample in self.samples.items() if one == tier}
        return sorted(control, key=lambda attack: (control[attack], attack))

    def attack(self, text: str) -> PluginRecord | None:
        """The description of an attack."""
        return next((one.attack for (_, attack, _), one in self.samples.items() if attack == text and one.attack), None)

    def row(self, defense: str, tier: Tier | None = None) -> list[Sample]:
        """The samples of a defense, of one tier or both."""
        return [one for (row, _, other), one in self.samples.items() if row == defense and tier in (None, other)]

    def facts(self, defense: str) -> list[Facts]:
        """The facts about a defense that do not depend on the attack, once for each seed."""
        first: dict[int, Facts] = {}
        for sample in self.row(defense):
            for seed, facts in sample.facts.items():
                first.setdefault(seed, facts)
        return list(first.values())

    def is_bare(self, defense: str) -> bool:
        """Whether this is the row without a defense."""
        return is_bare(self.records[defense])

    @cached_property
    def _tried(self) -> dict[Tier, dict[str, set[str]]]:
        """Tier -> attack -> the rows that met it."""
        return {
            tier: {key: set(rows) for key, rows in group((k[1], k[0]) for k in self.samples if k[2] == tier).items()}
            for tier in TIERS
        }

    def shared_attacks(self, tier: Tier) -> list[str]:
        """The attacks of the benchmark, or else those that most rows met.

        A worst case is over these, so that all rows are judged alike.
        """
        if self.benchmark:
            return [attack for attack in self.attacks(tier) if attack in self.benchmark.attacks]
        tried = self._tried[tier]
        rows = len(set().union(*tried.values()))
        return [attack for attack in self.attacks(tier) if 2 * len(tried[attack]) > rows]

    @cached_property
    def shared_seeds(self) -> set[int]:
        """The seeds of the benchmark, or else those that most rows have.

        Only rows that learn have more, one for each training.
        """
        if self.benchmark:
            return set(self.benchmark.seeds)
        fixed = [one for one in self.defenses if not any(sample.design.trainings for sample in self.row(one))]
        rows = fixed or self.defenses
        have = [{outcome.cell.seed for sample in self.row(one) for outcome in sample.outcomes} for one in rows]
        common = {seed for seed in set().union(*have) if 2 * sum(seed in one for one in have) > len(have)}
        return common or set().union(*have)

    def _worst(self, defense: str, tier: Tier) -> dict[int, Facts]:
        """The worst case over the shared attacks, or over all of a row that met none of them."""
        row, shared = self.row(defense, tier), self.shared_attacks(tier)
        samples = [one for one in row if one.cell.attack in shared] or row
        seeds = None if any(one.design.trainings for one in samples) else self.shared_seeds
        return worst_case_of(samples, seeds) or worst_case_of(samples)

    def missing(self, defense: str, tier: Tier) -> list[str]:
        """What a row lacks of what it is judged by: attacks, some with their seeds."""
        known = {one.cell.attack: set(one.facts) for one in self.row(defense, tier) if one.facts}
        lacking = []
        for attack in self.shared_attacks(tier) or sorted(self._tried[tier]):
            seeds = self.shared_seeds - known.get(attack, set())
            if attack not in known:
                lacking.append(plain(attack))
            elif seeds:
                lacking.append(f"{plain(attack)} with seed {', '.join(map(str, sorted(seeds)))}")
        return lacking

    def further(self, defense: str) -> list[Sample]:
        """The row's cells with attacks of the basis tier that most rows did not meet."""
        shared = self.shared_attacks(self.basis)
        row = self.row(defense, self.basis)
        return [one for one in row if shared and one.facts and one.cell.attack not in shared]

    @cached_property
    def headlines(self) -> dict[str, PerImage]:
        """What ranks the rows: for each image, whether it survives every attack of the basis tier."""
        survival = {one: self._survival(one) for one in self.defenses}
        return {one: vector for one, vector in survival.items() if vector is not None}

    def _survival(self, defense: str) -> PerImage | None:
        seeds = list(self.worst[defense, self.basis].values())
        return per_image(seeds, "defended_attacked", design=self.design(defense))

    def design(self, defense: str) -> Design:
        """What the images and seeds of a row are a sample of."""
        return design_of(self.row(defense)[0].cell, self.records[defense])

    @cached_property
    def undefended(self) -> PerImage | None:
        """The worst case of the model without a defense; from the facts about it in other rows if it has no row."""
        for defense in self.defenses:
            if self.is_bare(defense) and defense in self.headlines and not self.missing(defense, self.basis):
                return self.headlines[defense]
        complete = [one for one in self.defenses if self.worst[one, self.basis] and not self.missing(one, self.basis)]
        if not complete:
            return None
        design = replace(self.design(complete[0]), trainings=False)
        return per_image(list(self.worst[complete[0], self.basis].values()), "bare_attacked", design=design)

    @cached_property
    def flags(self) -> dict[str, list[Flag]]:
        """What the checks find about each row."""
        oracles = {key: one for key, one in self.samples.items() if is_oracle(self.records[key[0]])}
        return {
            one: run_checks(
                RowRecords(
                    defense=self.records[one],
                    samples=self.row(one),
                    related=self._related.get(one, ()),
                    oracles=oracles,
                    headline=mean(self.headlines[one]) if one in self.headlines else None,
                    latency=self.times[one],
                )
            )
            for one in self.defenses
        }

    @cached_property
    def placements(self) -> list[Placement]:
        """All rows in the order of the board: by section, and within it by the worst case."""
        able = {one: vector for one, vector in self.headlines.items() if not self._why_not_compared(one)}
        barred = {one: text for one in able if (text := self._why_barred(one))}
        bare = self.undefended
        better = set(able) if bare is None else better_than(able, bare)
        above = {one: vector for one, vector in able.items() if one in better}
        places = ranks(above, barred)
        shared = [*places.values()]

        def placement(defense: str) -> Placement:
            if self.is_bare(defense):
                return Placement(defense, "", "", "The model without a defense is what the others are compared with.")
            if why := self._why_not_compared(defense):
                section = UPPER_BOUND if is_oracle(self.records[defense]) else NOT_COMPARED
                return Placement(defense, DASH, "" if self._demonstration else section, why)
            if defense in barred:
                return Placement(defense, DASH, "" if defense in better else NO_BETTER, barred[defense])
            if defense not in better:
                return Placement(defense, DASH, NO_BETTER, "Not better than no defense beyond the paired interval.")
            place = places[defense]
            return Placement(defense, f"{place}{'=' if shared.count(place) > 1 else ''}", "", "")

        def order(one: Placement) -> tuple[int, bool, float, str]:
            bare = self.is_bare(one.defense)
            level = mean(self.headlines[one.defense]).value if one.defense in self.headlines else -1.0
            section = NO_BETTER if bare and not self._demonstration else one.section
            return PARTS.index(section), not bare, -level, one.defense

        return sorted(map(placement, self.defenses), key=order)

    @property
    def _demonstration(self) -> bool:
        return self.conditions.demonstration

    def _why_not_compared(self, defense: str) -> str:
        """Why a row is not compared with the others, "" if it is."""
        if self.is_bare(defense):
            return "The model without a defense is what the others are compared with."
        if is_oracle(self.records[defense]):
            return "Knows what no defense can know: an upper bound, not a competitor."
        if defense not in self.headlines:
            return f"No number against the {self.basis} attacker."
        if missing := self.missing(defense, self.basis):
            return f"Incomplete: no number against {', '.join(missing)}."
        lower = [one.name for one in self.further(defense) if one.attacked and self._goes_below(defense, one.attacked)]
        if lower:
            return f"Attacks that other rows did not meet go below its worst case: {', '.join(lower)}."
        return "A demonstration: the images are crops of ten photographs." if self._demonstration else ""

    def _goes_below(self, defense: str, attacked: PerImage) -> bool:
        return difference(self.headlines[defense], attacked).low > 0

    def _why_barred(self, defense: str) -> str:
        red = [f"{flag.id} {flag.title}" for flag in self.flags[defense] if flag.colour == "red"]
        return f"Not ranked because of {', '.join(red)}." if red else ""
