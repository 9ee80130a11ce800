"""What records must agree in, whoever made them: found by reading them, without computing a cell again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

from bench.records.schema import Facts, Outcome


def contradiction(outcomes: Sequence[Outcome]) -> str | None:
    """The first thing about the records of one defense and seed that cannot be, or None."""
    with_facts = [(one, one.facts) for one in outcomes if one.facts]
    for outcome, facts in with_facts:
        if told := _inside(facts):
            return f"{outcome.cell}: {told}"
        if outcome.defense and not outcome.defense.traits.get("random") and (told := _reached(facts, outcome)):
            return f"{outcome.cell}: {told}"
    return _between(with_facts)


def _inside(facts: Facts) -> str | None:
    """Lengths and ranges."""
    count = len(facts.index)
    for one in fields(facts):
        values = getattr(facts, one.name)
        if one.name in ("index", "label", "noted") or values is None:
            continue
        if len(values) != count:
            return f"{one.name} has {len(values)} values for {count} images"
        if not all(math.isfinite(value) and 0 <= value <= 1 for value in values):
            return f"{one.name} has values outside 0 to 1"
    return None if len(facts.label) == count else f"there are {len(facts.label)} labels for {count} images"


def _reached(facts: Facts, outcome: Outcome) -> str | None:
    """Untargeted: the attacker has reached the goal on an eligible image just if it is not classified rightly."""
    if outcome.cell.goal != "untargeted":
        return None
    rows = zip(facts.index, facts.eligible, facts.reached, facts.defended_attacked, strict=True)
    for image, eligible, reached, right in rows:
        if eligible and abs(reached + right - 1) > 1e-6:
            return f"on image {image} the goal is reached ({reached:g}) and the answer is right ({right:g})"
    return None


def _between(outcomes: Sequence[tuple[Outcome, Facts]]) -> str | None:
    """Clean answers are those of one model on the same images, and oblivious images those of the bare model."""
    first: dict[tuple[str, ...], tuple[Outcome, list[float]]] = {}
    for outcome, facts in outcomes:
        told = {(name,): getattr(facts, name) for name in ("index", "label", "bare_clean", "defended_clean")}
        for key, values in (told | {("bare_attacked", outcome.cell.attack): facts.bare_attacked}).items():
            other, expected = first.setdefault(key, (outcome, values))
            if values != expected:
                return f"{outcome.cell} and {other.cell} differ in {key[0]}, which must be the same"
    return None
