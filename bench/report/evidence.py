"""What the records of one board amount to: worst cases, flags and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from bench.core.text import plain
from bench.records.format import DASH
from bench.records.metrics import PerImage, mean, per_image, ranks
from bench.records.samples import Conditions, Sample, Samples, worst_case_of
from bench.records.schema import TIERS, Facts, Latency, Outcome, PluginRecord, Tier
from bench.report.checks import run_checks
from bench.report.flags import Flag, RowRecords, is_bare, is_oracle
from bench.report.summary import group


class Evidence:
    """The samples under the same conditions, and those on other boards that checks look at."""

    def __init__(
        self,
        conditions: Conditions,
        boards: Mapping[Conditions, Samples],
        times: Mapping[tuple[str, str, str], Latency],
    ) -> None:
        self.conditions, self.samples = conditions, boards[conditions]
        self.defenses = sorted({defense for defense, _, _ in self.samples})
        self.records: dict[str, PluginRecord | None] = {
            one: next((sample.defense for sample in self.row(one) if sample.defense), None) for one in self.defenses
        }
        self.times = {one: times.get((conditions.dataset, conditions.model, one)) for one in self.defenses}
        self.worst: dict[tuple[str, Tier], dict[int, Facts]] = {
            (defense, tier): worst_case_of(self.row(defense, tier)) for defense in self.defenses for tier in TIERS
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
        """All facts about a defense."""
        return [facts for sample in self.row(defense) for facts in sample.facts.values()]

    def is_bare(self, defense: str) -> bool:
        """Whether this is the row without a defense."""
        return is_bare(self.records[defense])

    def missing(self, defense: str, tier: Tier) -> list[str]:
        """The attacks without a number here that most rows were tried with, or this one was."""
        tried = group((attack, row) for row, attack, other in self.samples if other == tier)
        rows = len(set().union(*tried.values()))
        expected = {attack for attack, tested in tried.items() if 2 * len(tested) > rows or defense in tested}
        known = {one.cell.attack for one in self.row(defense, tier) if one.facts}
        return [plain(one) for one in sorted(expected - known)]

    @cached_property
    def headlines(self) -> dict[str, PerImage]:
        """What ranks the rows: for each image, whether it survives every attack of the basis tier."""
        survival = {
            one: per_image(list(self.worst[one, self.basis].values()), "defended_attacked") for one in self.defenses
        }
        return {one: vector for one, vector in survival.items() if vector is not None}

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

    def ranked(self) -> list[tuple[str, str, str]]:
        """(defense, rank, why it has none): the bare model first, then the ranked rows, then the others."""
        why = {one: self._why_unranked(one) for one in self.defenses}
        able = [one for one in self.defenses if not why[one]]
        numbers = ranks([self.headlines[one] for one in able])
        texts = [f"{number}{'=' if numbers.count(number) > 1 else ''}" for number in numbers]
        place = dict(zip(able, texts, strict=True))

        def order(defense: str) -> tuple[bool, bool, float, str]:
            level = mean(self.headlines[defense]).value if defense in self.headlines else -1.0
            return not self.is_bare(defense), defense not in place, -level, defense

        return [
            (one, "" if self.is_bare(one) else place.get(one, DASH), why[one])
            for one in sorted(self.defenses, key=order)
        ]

    def _why_unranked(self, defense: str) -> str:
        if self.is_bare(defense):
            return "The model without a defense is what the others are compared with."
        if is_oracle(self.records[defense]):
            return "Knows what no defense can know: an upper bound, not a competitor."
        if defense not in self.headlines:
            return f"No number against the {self.basis} attacker."
        if missing := self.missing(defense, self.basis):
            return f"Incomplete: no number against {', '.join(missing)}."
        barring = [flag.id for flag in self.flags[defense] if flag.bars_rank]
        return f"Not ranked because of {', '.join(barring)}." if barring else ""
