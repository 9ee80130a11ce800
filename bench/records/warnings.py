"""The warnings of a record: what makes its numbers doubtful."""

from __future__ import annotations

from bench.records.schema import Facts


def warnings_of(facts: Facts) -> list[str]:
    """What makes the numbers of this cell doubtful, with figures."""
    told = []
    zero = [value for value in facts.noted.get("zero_gradient", []) if value is not None]
    if zero and sum(zero) > 0.05 * len(zero):
        told.append(f"{_percent(sum(zero), len(zero))} of the input gradients were exactly zero")
    unconverged = [value for value in facts.noted.get("unconverged", []) if value is not None]
    if any(unconverged):
        told.append(f"the attack ended without convergence on {sum(unconverged):.0f} of {len(unconverged)} images")
    bare = [value for value in facts.noted.get("through bare", []) if value is not None]
    if sum(bare) > 0.5 * len(bare):
        told.append(
            f"on {sum(bare):.0f} of {len(bare)} images the strongest attack was the one crafted on the bare model: the "
            f"attack through the defense is weak"
        )
    died = sum(
        on_grid > off_grid
        for on_grid, off_grid in zip(facts.defended_attacked_8bit, facts.defended_attacked, strict=True)
    )
    if died > 0.01 * len(facts.index):
        told.append(f"success on {died} of {len(facts.index)} images dies on the 8-bit grid")
    return told


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"
