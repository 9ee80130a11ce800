"""What a check finds, what it is told, and how two attacks are compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from bench.core.text import signed
from bench.records.metrics import Estimate, difference, per_image
from bench.records.schema import Latency, PluginRecord
from bench.report.grouping import Sample, Samples

Colour = Literal["red", "amber", "grey"]
_SIZES = ("area", "eps", "pixels", "count", "size")


@dataclass(frozen=True)
class Flag:
    """What a check found about a row.

    Attributes:
        id: of the check.
        colour: red: the row is not ranked; amber: read with care; grey: the check could not run.
        title: the check in a few words.
        text: what was found, with figures.
    """

    id: str
    colour: Colour
    title: str
    text: str

    @property
    def bars(self) -> bool:
        """Whether a row with this flag is not ranked."""
        return self.colour == "red" or self.id == "S33"


@dataclass(frozen=True)
class Row:
    """What the checks know about one row of a board.

    Attributes:
        defense: its text.
        record: what is known of it.
        samples: this row's cells, of this board.
        related: the same defense's cells of all boards with this data set, model, effort and number of images.
        oracles: cells of this board whose defense is told what no defense can know.
        headline: what the row would be ranked by.
        latency: its times, if there are any.
    """

    defense: str
    record: PluginRecord | None
    samples: Sequence[Sample]
    related: Sequence[Sample]
    oracles: Samples
    headline: Estimate | None
    latency: Latency | None = None

    @property
    def bare(self) -> bool:
        """Whether this is the row without a defense."""
        return self.record.traits.get("kind") == "none" if self.record else self.defense == "none"

    def direct(self, samples: Sequence[Sample]) -> list[Sample]:
        """Those that have facts and whose attacker worked on the very model that is judged."""
        return [one for one in samples if one.facts and (one.tier == "adaptive" or self.bare)]


def beaten(
    id: str, title: str, pairs: Sequence[tuple[Sample, Sample]], tolerance: float = 0.0, colour: Colour = "red"
) -> Flag | None:
    """Fires where of a pair the first, which must not, leaves less than the second, beyond the paired interval."""
    if not pairs:
        return Flag(id, "grey", title, "There are no two cells to compare.")
    hit = []
    for first, second in pairs:
        if first.attacked is None or second.attacked is None:
            continue
        gap = difference(second.attacked, first.attacked)
        if gap.low > 0 and gap.value > tolerance:
            hit.append(f"{first.name} leaves {figures(gap)} points less than {second.name}")
    return Flag(id, colour, title, "; ".join(hit) + ".") if hit else None


def same_tier(samples: Sequence[Sample]) -> Iterator[tuple[Sample, Sample]]:
    """All ordered pairs of one tier."""
    return (pair for pair in permutations(samples, 2) if pair[0].tier == pair[1].tier)


def grows(small: Sample, large: Sample) -> bool:
    """Whether two attacks differ in the size of their budget alone."""
    if not small.record or not large.record or small.record.name != large.record.name:
        return False
    a, b = small.record.parameters, large.record.parameters
    differ = [key for key in {*a, *b} if a.get(key) != b.get(key)]
    return len(differ) == 1 and differ[0] in _SIZES and _float(a.get(differ[0])) < _float(b.get(differ[0]))


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def bare_loss(sample: Sample) -> Estimate:
    """What the attack takes from the bare model, paired."""
    seeds = list(sample.facts.values())
    clean, attacked = per_image(seeds, "bare_clean"), per_image(seeds, "bare_attacked")
    if clean is None or attacked is None:  # both fields are always there
        raise ValueError("Expected facts of the bare model.")
    return difference(clean, attacked)


def figures(gap: Estimate) -> str:
    """A difference in points, with its interval."""
    return f"{signed(100 * gap.value)} ({signed(100 * gap.low)} to {signed(100 * gap.high)})"
