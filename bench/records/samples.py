"""Records in groups: the seeds of a cell form a sample, and samples under the same conditions may be compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.core.text import plain
from bench.records.intervals import PerImage
from bench.records.metrics import Design, per_image, worst_case
from bench.records.schema import Cell, Facts, Outcome, PluginRecord, Tier

DEMONSTRATION = "photos"
"""The data set whose classes are crops of one photograph each: it shows how things work, and ranks nothing."""


@dataclass(frozen=True, order=True)
class Conditions:
    """What the records of one board share; numbers under different conditions are never compared.

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

    @property
    def scale(self) -> tuple[str, str, str, int]:
        """What boards with different budgets and goals may share: data set, model, effort and number of images."""
        return self.dataset, self.model, self.effort, self.images

    @property
    def demonstration(self) -> bool:
        """Whether the images are crops of a few photographs."""
        return self.dataset.partition(":")[0] == DEMONSTRATION


@dataclass(frozen=True)
class Sample:
    """The records of one cell, ordered by seed."""

    outcomes: tuple[Outcome, ...]

    @property
    def cell(self) -> Cell:
        """The cell of the first seed."""
        return self.outcomes[0].cell

    @cached_property
    def attack(self) -> PluginRecord | None:
        """The attack's description, if any record has it."""
        return next((one.attack for one in self.outcomes if one.attack), None)

    @cached_property
    def defense(self) -> PluginRecord | None:
        """The defense's description, if any record has it."""
        return next((one.defense for one in self.outcomes if one.defense), None)

    @property
    def name(self) -> str:
        """The cell in a few words, such as "patch on lgs (adaptive)"."""
        goal = "" if self.cell.goal == "untargeted" else f", {self.cell.goal}"
        return plain(f"{self.cell.attack} on {self.cell.defense} ({self.cell.tier}{goal})")

    @property
    def access(self) -> str:
        """What the attack needs from the model, "" if unknown."""
        return str(self.attack.traits.get("access", "")) if self.attack else ""

    @property
    def accesses(self) -> frozenset[str]:
        """What the attacks that it is made of need, or it alone."""
        traits = self.attack.traits if self.attack else {}
        return frozenset(map(str, traits.get("accesses", []))) or frozenset({self.access})

    @property
    def universal(self) -> bool:
        """Whether one artifact serves for all images."""
        return bool(self.attack and self.attack.traits.get("universal"))

    @property
    def design(self) -> Design:
        """What its images and seeds are a sample of."""
        return design_of(self.cell, self.defense)

    @property
    def family(self) -> str:
        """As `Attack.family`; an attack without one is a family of its own."""
        return str(self.attack.traits.get("family") or self.attack.name) if self.attack else self.cell.attack

    @property
    def steps(self) -> int:
        """As `Attack.steps`, 0 if no record says."""
        steps = self.attack.traits.get("steps", self.attack.parameters.get("steps")) if self.attack else None
        return steps if isinstance(steps, int) else 0

    @property
    def accuracy(self) -> float:
        """Mean accuracy under attack, 1 if unknown."""
        return float(self.attacked.values.mean()) if self.attacked and len(self.attacked.values) else 1.0

    @cached_property
    def facts(self) -> dict[int, Facts]:
        """The facts of each seed that succeeded."""
        return {one.cell.seed: one.facts for one in self.outcomes if one.status == "ok" and one.facts}

    @cached_property
    def attacked(self) -> PerImage | None:
        """For each image the share of seeds that classify it correctly under attack."""
        return per_image(list(self.facts.values()), "defended_attacked", design=self.design)

    @property
    def failures(self) -> list[Outcome]:
        """The records without numbers."""
        return [one for one in self.outcomes if one.cell.seed not in self.facts]


def design_of(cell: Cell, defense: PluginRecord | None) -> Design:
    """What the images and seeds of a cell's row are a sample of."""
    trained = bool(defense and (defense.traits.get("trained") or defense.traits.get("kind") == "trained"))
    return Design(cell.dataset.partition(":")[0] == DEMONSTRATION, trained)


Samples = dict[tuple[str, str, Tier], Sample]
"""(defense, attack, tier) -> sample."""


def group_by_conditions(outcomes: Iterable[Outcome]) -> tuple[dict[Conditions, Samples], list[Outcome]]:
    """Sorts records into samples under the same conditions.

    A failed record that does not describe its attack joins the other records of that attack.

    Returns:
        The samples by their conditions, in order; and the records whose attack no record describes.
    """
    ordered = sorted(outcomes, key=lambda one: (str(one.cell), one.cell.seed))
    known = {(one.cell.dataset, one.cell.effort, one.cell.attack): one.attack for one in ordered if one.attack}
    groups: dict[Conditions, dict[tuple[str, str, Tier], list[Outcome]]] = {}
    unknown = []
    for outcome in ordered:
        cell = outcome.cell
        attack = outcome.attack or known.get((cell.dataset, cell.effort, cell.attack))
        if attack is None:
            unknown.append(outcome)
            continue
        threat_model, budget = (str(attack.traits.get(name, "")) for name in ("threat_model", "budget"))
        conditions = Conditions(cell.dataset, cell.model, threat_model, budget, cell.goal, cell.effort, cell.images)
        groups.setdefault(conditions, {}).setdefault((cell.defense, cell.attack, cell.tier), []).append(outcome)
    samples = {
        conditions: {key: Sample(tuple(sorted(seeds, key=lambda one: one.cell.seed))) for key, seeds in group.items()}
        for conditions, group in sorted(groups.items())
    }
    return samples, unknown


def worst_case_of(samples: Sequence[Sample], seeds: Collection[int] | None = None) -> dict[int, Facts]:
    """The facts of the worst case over these attacks, for each seed (of `seeds`) with images that all of them have."""
    facts = [one.facts for one in samples if one.facts]
    if not facts:
        return {}
    common = set.intersection(*(set(one) for one in facts))
    kept = sorted(common if seeds is None else common & set(seeds))
    worst = {seed: worst_case([one[seed] for one in facts]) if len(facts) > 1 else facts[0][seed] for seed in kept}
    return {seed: one for seed, one in worst.items() if one.index}
