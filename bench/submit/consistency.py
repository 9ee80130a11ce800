"""What records must agree in, whoever made them: found by reading them, without computing a cell again."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.schema import Facts, Outcome


def contradiction(outcomes: Sequence[Outcome]) -> str | None:
    """The first thing in the records of one defense and seed that cannot be true, or None."""
    with_facts = [(outcome, outcome.facts) for outcome in outcomes if outcome.facts]
    for outcome, facts in with_facts:
        if outcome.defense and not outcome.defense.traits.get("random") and (fault := _reached(facts, outcome)):
            return f"{outcome.cell}: {fault}"
    return _between(with_facts)


def _reached(facts: Facts, outcome: Outcome) -> str | None:
    """Untargeted: the goal is reached on an eligible image if and only if it is not classified correctly."""
    if outcome.cell.goal != "untargeted":
        return None
    rows = zip(facts.index, facts.eligible, facts.reached, facts.defended_attacked, strict=True)
    for image, eligible, reached, correct in rows:
        if eligible and abs(reached + correct - 1) > 1e-6:
            return f"on image {image} the goal is reached ({reached:g}) and the answer is correct ({correct:g})"
    return None


def _between(outcomes: Sequence[tuple[Outcome, Facts]]) -> str | None:
    """Clean answers are those of one model on the same images, and oblivious images those of the bare model."""
    first: dict[tuple[str, ...], tuple[Outcome, list[float]]] = {}
    for outcome, facts in outcomes:
        shared = {(name,): getattr(facts, name) for name in ("index", "label", "bare_clean", "defended_clean")}
        for key, values in (shared | {("bare_attacked", outcome.cell.attack): facts.bare_attacked}).items():
            other, expected = first.setdefault(key, (outcome, values))
            if values != expected:
                return f"{outcome.cell} and {other.cell} differ in {key[0]}, which must be the same"
    return None
