"""The warnings of a record: what makes its numbers doubtful."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.records.schema import Facts

NON_FINITE_CLEAN, NON_FINITE_ATTACKED = "non_finite_clean", "non_finite_attacked"
"""Names in `Facts.noted`: the share of the draws in which the defended model's logits were NaN or infinite."""

UNREPEATABLE, DEPENDS_ON_BATCH, DEPENDS_ON_HISTORY = "unrepeatable", "depends_on_batch", "depends_on_history"
"""Names in `Facts.noted`, of answers that depend on more than the image: 1 for each image that was asked again."""

HIDDEN_INPUTS = {
    UNREPEATABLE: ("S08", "the defended model answers the same question differently each time: undeclared randomness"),
    DEPENDS_ON_BATCH: ("S34", "the defended model's answers depend on the other images in the batch"),
    DEPENDS_ON_HISTORY: ("S34", "the defended model's answers depend on the images that it was shown before"),
}
"""Name in `Facts.noted` -> the check of the evaluation that it violates, which bars a rank, and what it says."""


def warnings_of(facts: Facts, classes: int) -> list[str]:
    """What makes the numbers of this cell doubtful, with figures.

    Args:
        facts: of the cell.
        classes: how many the data set has.
    """
    doubts = [f"{check}: {text}" for name, (check, text) in HIDDEN_INPUTS.items() if name in facts.noted]
    for name, images in ((NON_FINITE_CLEAN, "clean"), (NON_FINITE_ATTACKED, "attacked")):
        broken = [value for value in facts.noted.get(name, []) if value]
        if broken:
            share = _percent(sum(broken), len(facts.index))
            doubts.append(
                f"the defended model's logits are not finite for {share} of the {images} images: counted as wrong"
            )
    for name, correct in (("bare", facts.bare_clean), ("defended", facts.defended_clean)):
        if is_at_chance(correct, classes):
            share = _percent(sum(correct), len(correct))
            doubts.append(
                f"the clean accuracy of the {name} model, {share}, is no better than chance: check its weights, its "
                f"normalisation and the order of the classes"
            )
            break
    zero = [value for value in facts.noted.get("zero_gradient", []) if value is not None]
    if zero and sum(zero) > 0.05 * len(zero):
        doubts.append(f"{_percent(sum(zero), len(zero))} of the input gradients were exactly zero")
    unconverged = [value for value in facts.noted.get("unconverged", []) if value is not None]
    if any(unconverged):
        doubts.append(f"the attack ended without convergence on {sum(unconverged):.0f} of {len(unconverged)} images")
    bare = _bare_beside_others(facts)
    if sum(bare) > 0.5 * len(bare):
        doubts.append(
            f"on {sum(bare):.0f} of {len(bare)} images the strongest attack was the one crafted on the bare model: the "
            f"attack through the defense is weak"
        )
    died = sum(
        on_grid > off_grid
        for on_grid, off_grid in zip(facts.defended_attacked_8bit, facts.defended_attacked, strict=True)
    )
    if died > 0.01 * len(facts.index):
        doubts.append(f"success on {died} of {len(facts.index)} images dies on the 8-bit grid")
    return doubts


def _bare_beside_others(facts: Facts) -> list[float]:
    """Whether the bare model was the strongest view, for the images that were attacked through another one, too."""
    views = {name: values for name, values in facts.noted.items() if name.startswith("through ")}
    bare = views.pop("through bare", [])
    others = zip(*views.values(), strict=True)
    return [one for one, own in zip(bare, others, strict=False) if one is not None and set(own) != {None}]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def is_at_chance(correct: Sequence[float], classes: int) -> bool:
    """Whether guessing would do as well, by a one-sided test at 5 %."""
    if classes < 2 or not correct or min(correct) == 1:
        return False
    chance = 1 / classes
    return sum(correct) / len(correct) <= chance + 1.64 * math.sqrt(chance * (1 - chance) / len(correct))
