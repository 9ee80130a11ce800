"""Flags: what a check found about a row, what checks know of it, and how they compare two attacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Literal

from bench.records.format import format_gap
from bench.records.intervals import Comparison, Estimate, difference
from bench.records.metrics import per_image
from bench.records.samples import Sample, Samples
from bench.records.schema import Latency, PluginRecord

Colour = Literal["red", "amber", "grey"]
_SIZES = ("area", "eps", "pixels", "count", "size")


@dataclass(frozen=True)
class Flag:
    """What a check found about a row.

    Attributes:
        colour: red: the number cannot be trusted, which bars the row from a rank; amber: read it with care; grey: the
            check could not run.
        text: the finding, with figures.
        brief: stands in for a long text where many flags are listed.
        id, title: of the check, which fills them in.
    """

    colour: Colour
    text: str
    brief: str = ""
    id: str = ""
    title: str = ""

    @property
    def shortened(self) -> Flag:
        """The flag with its brief text, if it has one."""
        return replace(self, text=self.brief, brief="") if self.brief else self


red = partial(Flag, "red")
"""A number that cannot be trusted, and bars the row from a rank."""
amber = partial(Flag, "amber")
"""A number to be read with care."""
not_run = partial(Flag, "grey")
"""A check without the records it needs."""


@dataclass(frozen=True)
class RowRecords:
    """What checks know about a row.

    Attributes:
        defense: its description, None if no record has it.
        samples: its cells on this board.
        related: the defense's cells on all boards with this data set, model, effort and number of images.
        oracles: the cells on this board of defenses that know what no defense can.
        headline: what the row would be ranked by.
        latency: its times, if measured.
    """

    defense: PluginRecord | None
    samples: Sequence[Sample]
    related: Sequence[Sample]
    oracles: Samples
    headline: Estimate | None
    latency: Latency | None = None

    @property
    def bare(self) -> bool:
        """Whether this is the row without a defense."""
        return is_bare(self.defense)

    @property
    def random(self) -> bool:
        """Whether the defense draws random numbers."""
        return bool(self.defense and self.defense.traits.get("random"))

    def direct(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those with facts whose attacker worked on the very model that is judged."""
        return [one for one in samples if one.facts and (one.cell.tier == "adaptive" or self.bare)]


def is_bare(defense: PluginRecord | None) -> bool:
    """Whether this defense leaves the model as it is."""
    return defense is not None and defense.traits.get("kind") == "none"


def is_oracle(defense: PluginRecord | None) -> bool:
    """Whether this defense is told what no defense can know."""
    return defense is not None and defense.traits.get("ranked") is False


def first_is_stronger(
    pairs: Sequence[tuple[Sample, Sample]], flag: Callable[[str], Flag] = red, tolerance: float = 0.0
) -> Flag | None:
    """A flag where the first attack of a pair hurts more than the second, beyond the paired interval."""
    if not pairs:
        return not_run("There are no two cells to compare.")
    stronger = []
    for first, second in pairs:
        if first.attacked and second.attacked:
            same = first.cell.defense == second.cell.defense
            gap = Comparison(second.attacked, first.attacked, same_trainings=same).estimate
            if gap.low > 0 and gap.value > tolerance:
                stronger.append(f"{first.name} leaves {format_gap(gap)} points less than {second.name}")
    return flag("; ".join(stronger) + ".") if stronger else None


def same_tier(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Sample]]:
    """All ordered pairs within a tier."""
    return (pair for pair in permutations(samples, 2) if pair[0].cell.tier == pair[1].cell.tier)


def is_smaller(small: Sample, large: Sample) -> bool:
    """Whether two attacks differ only in the size of their budgets, and the first has the smaller one."""
    if not small.attack or not large.attack or small.attack.name != large.attack.name:
        return False
    a, b = small.attack.parameters, large.attack.parameters
    differing = [key for key in {*a, *b} if a.get(key) != b.get(key)]
    if len(differing) != 1 or differing[0] not in _SIZES:
        return False
    first, second = a.get(differing[0]), b.get(differing[0])
    return isinstance(first, int | float) and isinstance(second, int | float) and first < second


def bare_loss(sample: Sample) -> Estimate:
    """The accuracy that the attack takes from the bare model, paired."""
    seeds = list(sample.facts.values())
    design = replace(sample.design, trainings=False)
    clean, attacked = (per_image(seeds, name, design=design) for name in ("bare_clean", "bare_attacked"))
    if clean is None or attacked is None:  # both fields are always there
        raise ValueError("Expected facts of the bare model.")
    return difference(clean, attacked)
