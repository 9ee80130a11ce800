"""Records, sorted: which of them belong to one board, and which are seeds of one cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.core.text import plain
from bench.records.metrics import PerImage, per_image, worst_case
from bench.records.schema import Facts, Outcome, PluginRecord, Tier

@dataclass(frozen=True, order=True)
class Conditions:
    """What the records of one board have in common; numbers of two settings are never compared.

    Attributes:
        dataset, model, effort, images, goal: as in Cell.
        threat_model, budget: of the attacks, as printed.
    """

    dataset: str
    model: str
    threat_model: str
    budget: str
    goal: str
    effort: str
    images: int


@dataclass(frozen=True)
class Sample:
    """The records of one cell, one for each seed, in the order of the seeds."""

    outcomes: tuple[Outcome, ...]

    @property
    def attack(self) -> str:
        """The attack's text."""
        return self.outcomes[0].cell.attack

    @property
    def defense(self) -> str:
        """The defense's text."""
        return self.outcomes[0].cell.defense

    @property
    def tier(self) -> Tier:
        """Which attacker."""
        return self.outcomes[0].cell.tier

    @property
    def goal(self) -> str:
        """What the attacker wants."""
        return self.outcomes[0].cell.goal

    @cached_property
    def record(self) -> PluginRecord | None:
        """What is known of the attack."""
        return next((one.attack for one in self.outcomes if one.attack), None)

    @property
    def access(self) -> str:
        """What the attack asks of the model; "" where that is not known."""
        return str(self.record.traits.get("access", "")) if self.record else ""

    @property
    def name(self) -> str:
        """For sentences."""
        goal = "" if self.goal == "untargeted" else f", {self.goal}"
        return plain(f"{self.attack} on {self.defense} ({self.tier}{goal})")

    @property
    def family(self) -> str:
        """As `Attack.family`; an attack without one is a family of its own."""
        return str(self.record.traits.get("family") or self.record.name) if self.record else self.attack

    @property
    def names(self) -> set[str]:
        """The words by which a defense may say that it was tuned on this attack."""
        if self.record is None:
            return set()
        return {self.record.name, self.family, str(self.record.traits.get("threat_model"))}

    @property
    def steps(self) -> int:
        """As `Attack.steps`; 0 if the record does not say."""
        steps = self.record.traits.get("steps") if self.record else None
        return steps if isinstance(steps, int) else 0

    @property
    def universal(self) -> bool:
        """Whether one artifact serves for all images."""
        return bool(self.record and self.record.traits.get("universal"))

    @property
    def accuracy(self) -> float:
        """The mean of `attacked`; 1 where there is none."""
        return float(self.attacked.values.mean()) if self.attacked and len(self.attacked.values) else 1.0

    @cached_property
    def facts(self) -> dict[int, Facts]:
        """The facts of each seed that has any."""
        return {one.cell.seed: one.facts for one in self.outcomes if one.status == "ok" and one.facts}

    @cached_property
    def attacked(self) -> PerImage | None:
        """Whether each image is still classified rightly, as the mean over the seeds."""
        return per_image(list(self.facts.values()), "defended_attacked")

    @property
    def failures(self) -> list[Outcome]:
        """The seeds without a number."""
        return [one for one in self.outcomes if one.cell.seed not in self.facts]


Samples = dict[tuple[str, str, Tier], Sample]
"""(defense, attack, tier) -> sample."""


def settle(outcomes: Iterable[Outcome]) -> tuple[dict[Conditions, Samples], list[Outcome]]:
    """Sorts records into settings and samples.

    A record without an attack (it could not even be made) joins the others of the same text.

    Returns:
        The settings in order, and the records whose attack nobody knows.
    """
    every = sorted(outcomes, key=lambda one: (str(one.cell), one.cell.seed))
    known = {(one.cell.dataset, one.cell.effort, one.cell.attack): one.attack for one in every if one.attack}
    groups: dict[Conditions, dict[tuple[str, str, Tier], list[Outcome]]] = {}
    homeless = []
    for outcome in every:
        cell = outcome.cell
        record = outcome.attack or known.get((cell.dataset, cell.effort, cell.attack))
        if record is None:
            homeless.append(outcome)
            continue
        setting = _setting(outcome, record)
        groups.setdefault(setting, {}).setdefault((cell.defense, cell.attack, cell.tier), []).append(outcome)
    settings = {
        setting: {key: Sample(tuple(sorted(seeds, key=lambda one: one.cell.seed))) for key, seeds in group.items()}
        for setting, group in sorted(groups.items())
    }
    return settings, homeless


def _setting(outcome: Outcome, record: PluginRecord) -> Conditions:
    cell = outcome.cell
    threat_model, budget = (str(record.traits.get(name, "")) for name in ("threat_model", "budget"))
    return Conditions(cell.dataset, cell.model, threat_model, budget, cell.goal, cell.effort, cell.images)


def worst(samples: Sequence[Sample]) -> dict[int, Facts]:
    """For each seed that all samples have facts for, the facts of their worst case."""
    tried = [one.facts for one in samples if one.facts]
    if len(tried) < 2:
        return tried[0] if tried else {}
    seeds = sorted(set.intersection(*(set(one) for one in tried)))
    return {seed: worst_case([one[seed] for one in tried]) for seed in seeds}


def of_row(samples: Mapping[tuple[str, str, Tier], Sample], defense: str) -> list[Sample]:
    """The samples of one defense."""
    return [sample for (one, _, _), sample in samples.items() if one == defense]
