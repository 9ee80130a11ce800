"""The columns of the wide table, and where their numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from bench.core.text import plain
from bench.records.metrics import certified_accuracy, rejection_clean
from bench.records.schema import TIERS, Tier
from bench.report.board import WORST, Column, Entry, Key
from bench.report.evidence import Evidence
from bench.report.format import Shown, duration, ratio, share

Filled = tuple[Column, Callable[[str], Shown]]
"""A column, and the number that a defense has in it."""


def columns(evidence: Evidence, entries: Mapping[Key, Entry]) -> list[Filled]:
    """For each tier the headline, δ, β and the attacks; then what only some defenses have.

    Where a tier has one attack, that is the worst case, and there is no other column for it.
    """
    found: list[Filled] = []
    for tier in TIERS:
        attacks = evidence.attacks(tier)
        if attacks:
            found += _of_tier(tier, attacks, entries)
    return found + _proofs(evidence) + _detectors(evidence) + _times(evidence) + _training(evidence)


def _of_tier(tier: Tier, attacks: list[str], entries: Mapping[Key, Entry]) -> list[Filled]:
    several = len(attacks) > 1
    head = WORST if several else attacks[0]

    def filled(attack: str, measure: str, label: str, hint: str, first: bool = False) -> Filled:
        def number(defense: str) -> Shown:
            entry = entries.get((defense, attack, tier))
            return entry.numbers.get(measure, Shown()) if entry else Shown()

        return Column(label, f"{tier} attacker", hint, tier, attack or None, first), number

    def under(attack: str, first: bool = False) -> Filled:
        hint = "Accuracy under this attack, over all images"
        return filled(attack, "attacked_accuracy", plain(attack), hint, first)

    worst = filled(
        WORST, "attacked_accuracy", "worst case", "Images that stay right under every one of the attacks", True
    )
    of = "worst case" if several else "attack"
    return [
        worst if several else under(attacks[0], True),
        filled(head, "delta", "δ", f"Clean accuracy − accuracy in the {of}, in points; smaller is better"),
        filled(head, "beta", "β", "Share still right of the images that are lost without a defense"),
        *(under(one) for one in (attacks if several else [])),
    ]


def _proofs(evidence: Evidence) -> list[Filled]:
    if all(facts.certified is None for one in evidence.defenses for facts in evidence.facts(one)):
        return []
    hint = "Proven to stay right whatever an attack within the budget does"
    column = Column("certified", "proof", hint, "certified", head=True)
    return [(column, lambda defense: share(certified_accuracy(*evidence.facts(defense))))]


def _detectors(evidence: Evidence) -> list[Filled]:
    if all(facts.rejected_clean is None for one in evidence.defenses for facts in evidence.facts(one)):
        return []
    column = Column("rejects clean", "detector", "Clean images that are rejected; they count as wrong")
    return [(column, lambda defense: share(rejection_clean(*evidence.facts(defense))))]


def _times(evidence: Evidence) -> list[Filled]:
    sizes = sorted({size for one in evidence.times.values() if one for size in one.batches})

    def filled(size: int) -> Filled:
        def number(defense: str) -> Shown:
            time = evidence.times[defense]
            return ratio(time.batches.get(size, {}), plain(time.machine)) if time else Shown()

        hint = f"Time of the defended model over the bare one, batches of {size}; not comparable across machines"
        return Column(f"batch {size}", "time", hint), number

    return [filled(size) for size in sizes]


def _training(evidence: Evidence) -> list[Filled]:
    """Seconds of training or calibration, as the median over the records."""
    costs = {
        defense: [one.seconds.get("train", 0.0) for sample in evidence.row(defense) for one in sample.outcomes]
        for defense in evidence.defenses
    }
    if not any(map(any, costs.values())):
        return []
    hint = "Time that the defense learned before it could protect; not comparable across machines"
    column = Column("training", "time", hint)
    return [(column, lambda defense: duration(median(costs[defense])) if any(costs[defense]) else Shown())]
