"""What the records of one board amount to: worst cases, who may be ranked, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from bench.core.text import plain
from bench.records.metrics import PerImage, mean, per_image, ranks
from bench.records.schema import TIERS, Facts, Latency, Outcome, PluginRecord, Tier
from bench.report import flags
from bench.report.checks import judge
from bench.report.format import NONE
from bench.report.grouping import Conditions, Sample, Samples, of_row, worst


class Evidence:
    """The samples of one setting, with those of the settings that checks look at too."""

    def __init__(
        self,
        setting: Conditions,
        everything: Mapping[Conditions, Samples],
        times: Mapping[tuple[str, str, str], Latency],
    ) -> None:
        self.setting, self.samples = setting, everything[setting]
        self.defenses = sorted({defense for defense, _, _ in self.samples})
        self.records = {one: _record(self.row(one)) for one in self.defenses}
        self.times = {one: times.get((setting.dataset, setting.model, one)) for one in self.defenses}
        self.worst: dict[tuple[str, Tier], dict[int, Facts]] = {
            (defense, tier): worst(self.row(defense, tier)) for defense in self.defenses for tier in TIERS
        }
        informed = any(self.worst[one, "adaptive"] for one in self.defenses if not self.bare(one))
        self.basis: Tier = "adaptive" if informed else "oblivious"
        self._related = _related(setting, everything)

    @property
    def outcomes(self) -> list[Outcome]:
        """All records."""
        return [outcome for sample in self.samples.values() for outcome in sample.outcomes]

    def attacks(self, tier: Tier) -> list[str]:
        """The attacks of a tier; those that ask nothing of the model, which are controls, come last."""
        found = {attack: sample.access == "none" for (_, attack, one), sample in self.samples.items() if one == tier}
        return sorted(found, key=lambda attack: (found[attack], attack))

    def attack(self, text: str) -> PluginRecord | None:
        """What is known of an attack."""
        return next((one.record for (_, attack, _), one in self.samples.items() if attack == text and one.record), None)

    def row(self, defense: str, tier: Tier | None = None) -> list[Sample]:
        """The samples of a defense, of one tier or of both."""
        return [one for one in of_row(self.samples, defense) if tier in (None, one.tier)]

    def facts(self, defense: str) -> list[Facts]:
        """All facts about a defense."""
        return [facts for sample in self.row(defense) for facts in sample.facts.values()]

    def bare(self, defense: str) -> bool:
        """Whether this is the row without a defense."""
        record = self.records[defense]
        return record.traits.get("kind") == "none" if record else defense == "none"

    def missing(self, defense: str, tier: Tier) -> list[str]:
        """Attacks that most rows have tried, or this one has, and this one has no number for."""
        tried: dict[str, set[str]] = {}
        for one, attack, other in self.samples:
            if other == tier:
                tried.setdefault(attack, set()).add(one)
        rows = len(set().union(*tried.values()))
        usual = {attack for attack, who in tried.items() if 2 * len(who) > rows or defense in who}
        return [plain(one) for one in sorted(usual - {one.attack for one in self.row(defense, tier) if one.facts})]

    @cached_property
    def headlines(self) -> dict[str, PerImage]:
        """What rows are ranked by: for each image, whether it survives every attack of the basis tier."""
        found = {
            one: per_image(list(self.worst[one, self.basis].values()), "defended_attacked") for one in self.defenses
        }
        return {one: vector for one, vector in found.items() if vector is not None}

    @cached_property
    def flags(self) -> dict[str, list[flags.Flag]]:
        """What the checks find about each row."""
        oracles = {key: one for key, one in self.samples.items() if _oracle(self.records[key[0]])}
        return {
            one: judge(
                flags.Row(
                    defense=one,
                    record=self.records[one],
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
        places = dict(zip(able, ranks([self.headlines[one] for one in able]), strict=True))

        def order(defense: str) -> tuple[bool, bool, float, str]:
            level = mean(self.headlines[defense]).value if defense in self.headlines else -1.0
            return not self.bare(defense), defense not in places, -level, defense

        def rank(defense: str) -> str:
            if self.bare(defense):
                return ""
            place = places.get(defense)
            tied = list(places.values()).count(place or 0) > 1
            return NONE if place is None else f"{place}{'=' if tied else ''}"

        return [(one, rank(one), why[one]) for one in sorted(self.defenses, key=order)]

    def _why_unranked(self, defense: str) -> str:
        if self.bare(defense):
            return "The model without a defense is what the others are compared with."
        if _oracle(self.records[defense]):
            return "Told what no defense can know: a bound, not a rival."
        if defense not in self.headlines:
            return f"No number against the {self.basis} attacker."
        if missing := self.missing(defense, self.basis):
            return f"Without a number for {', '.join(missing)}."
        bars = [flag.id for flag in self.flags[defense] if flag.bars]
        return f"Not ranked because of {', '.join(bars)}." if bars else ""


def _related(setting: Conditions, everything: Mapping[Conditions, Samples]) -> dict[str, list[Sample]]:
    """The cells of each defense in all boards of the same data set, model, effort and number of images."""
    found: dict[str, list[Sample]] = {}
    same = (setting.dataset, setting.model, setting.effort, setting.images)
    for other, samples in everything.items():
        if (other.dataset, other.model, other.effort, other.images) == same:
            for (defense, _, _), sample in samples.items():
                found.setdefault(defense, []).append(sample)
    return found


def _record(samples: Sequence[Sample]) -> PluginRecord | None:
    return next((one.defense for sample in samples for one in sample.outcomes if one.defense), None)


def _oracle(record: PluginRecord | None) -> bool:
    return record is not None and record.traits.get("ranked") is False
