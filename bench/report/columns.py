"""The columns of a board, with the number of each defense."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from bench.core.text import plain
from bench.records.format import Formatted, format_duration, format_failure, format_ratio, format_share
from bench.records.intervals import Estimate
from bench.records.metrics import certified_accuracy, rejection_clean
from bench.records.schema import TIERS, Facts, Tier
from bench.report.board import WORST_CASE, Column, Entry, EntryKey
from bench.report.evidence import Evidence

Numbers = Mapping[str, Formatted]
"""Defense -> its number in a column; a defense that is not there has none."""


def columns(evidence: Evidence, entries: Mapping[EntryKey, Entry]) -> list[tuple[Column, Numbers]]:
    """For each tier the worst case, δ, β and the attacks, the ranking tier first; then what only some defenses have."""
    tiers = sorted(TIERS, key=lambda tier: tier != evidence.basis)
    numbered = [column for tier in tiers for column in _attacked(tier, evidence.attacks(tier), entries)]
    hint = "Proven to stay correct whatever an attack within the budget does"
    proof = Column("certified", "proof", hint, "certified", primary=True)
    numbered += _measured(evidence, proof, "certified", certified_accuracy)
    rejects = Column("rejects clean", "detector", "Clean images that are rejected; they count as wrong")
    numbered += _measured(evidence, rejects, "rejected_clean", rejection_clean)
    return numbered + _times(evidence) + _training(evidence)


def _attacked(tier: Tier, attacks: list[str], entries: Mapping[EntryKey, Entry]) -> list[tuple[Column, Numbers]]:
    """The columns of a tier; a single attack is the worst case itself."""

    def column(attack: str, measure: str, label: str, hint: str, primary: bool = False) -> tuple[Column, Numbers]:
        numbers = {
            defense: entry.numbers[measure]
            for (defense, other, of), entry in entries.items()
            if (other, of) == (attack, tier) and measure in entry.numbers
        }
        return Column(label, f"{tier} attacker", hint, tier, attack or None, primary), numbers

    def under(attack: str, primary: bool = False) -> tuple[Column, Numbers]:
        hint = "Accuracy under this attack, over all images"
        return column(attack, "attacked_accuracy", plain(attack), hint, primary)

    if not attacks:
        return []
    several = len(attacks) > 1
    head, name = (WORST_CASE, "worst case") if several else (attacks[0], "attack")
    worst = "Images that stay correct under every one of the attacks"
    return [
        column(head, "attacked_accuracy", name, worst, True) if several else under(head, True),
        column(head, "delta", "δ", f"Clean accuracy − accuracy in the {name}, in points; smaller is better"),
        column(head, "beta", "β", "Share still correct of the images that are lost without a defense"),
        *(under(one) for one in attacks if several),
    ]


def _measured(
    evidence: Evidence, column: Column, fact: str, measure: Callable[..., Estimate | None]
) -> list[tuple[Column, Numbers]]:
    """A column for what only some defenses have, if any has it here."""
    facts: dict[str, list[Facts]] = {one: evidence.facts(one) for one in evidence.defenses}
    if all(getattr(one, fact) is None for known in facts.values() for one in known):
        return []
    shares = {one: format_share(measure(*known, design=evidence.design(one))) for one, known in facts.items()}
    return [(column, shares)]


def _times(evidence: Evidence) -> list[tuple[Column, Numbers]]:
    known = {defense: time for defense, time in evidence.times.items() if time}
    hint = "Time of the defended model over that of the bare one, in batches of {}; not comparable across machines"
    return [
        (
            Column(f"batch {size}", "time", hint.format(size)),
            {
                defense: format_ratio(time.batches.get(size, {}))
                if time.status == "ok"
                else format_failure(time.status, time.reason)
                for defense, time in known.items()
            },
        )
        for size in sorted({size for time in known.values() for size in time.batches})
    ]


def _training(evidence: Evidence) -> list[tuple[Column, Numbers]]:
    """Seconds of training or calibration, as the median over the records."""
    costs = {
        defense: [one.seconds.get("train", 0.0) for sample in evidence.row(defense) for one in sample.outcomes]
        for defense in evidence.defenses
    }
    column = Column("training", "time", "How long the defense learned beforehand; not comparable across machines")
    numbers = {defense: format_duration(median(seconds)) for defense, seconds in costs.items() if any(seconds)}
    return [(column, numbers)] if numbers else []
