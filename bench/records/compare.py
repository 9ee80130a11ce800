"""Two results folders side by side: what changed in each cell, with paired intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.core.identity import without_hashes
from bench.core.text import escape_markdown, markdown_table, signed
from bench.errors import InputError
from bench.records.metrics import NOTHING, Design, Estimate, attacked_accuracy, difference, per_image
from bench.records.samples import design_of
from bench.records.schema import Cell, Facts, Outcome
from bench.records.store import Store


@dataclass(frozen=True)
class Change:
    """How a cell changed.

    Attributes:
        before, after: accuracy under attack, as shares; NaN without a number.
        gap: after − before, paired over the images that both have; n is 0 if they cannot be compared.
        clean: the same for clean accuracy.
        why: why they cannot be compared, "" if they can.
    """

    cell: Cell
    before: float
    after: float
    gap: Estimate
    clean: Estimate
    why: str = ""

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval of the difference excludes zero."""
        return self.gap.n > 0 and (self.gap.low > 0 or self.gap.high < 0)

    @property
    def lost(self) -> bool:
        """Whether only the first folder has a number."""
        return not math.isnan(self.before) and math.isnan(self.after)


def compare_folders(first: Path, second: Path) -> list[Change]:
    """Every cell that one of the two has, in order; raises InputError if a folder holds no records.

    Two cells that differ only in the hashes of their files are one if no other differs only in those.
    """
    before, after = _records(first), _records(second)
    alone = [_by_text(set(own) - set(others)) for own, others in ((before, after), (after, before))]
    for text, own in alone[0].items():
        if len(own) == len(alone[1].get(text, [])) == 1:
            before[alone[1][text][0]] = before.pop(own[0])
    cells = sorted({*before, *after}, key=str)
    return [_change(cell, before.get(cell), after.get(cell)) for cell in cells]


def _by_text(cells: Iterable[Cell]) -> dict[Cell, list[Cell]]:
    """Cells by what they are without the hashes of their files."""
    groups: dict[Cell, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.with_texts(without_hashes), []).append(cell)
    return groups


def drops(changes: Sequence[Change], max_drop: float) -> list[Change]:
    """The cells whose accuracy, clean or under attack, fell by more than `max_drop` points, or that lost their number.

    Only the value of a drop counts, not its interval: with few images, a drop must not hide behind a wide interval.
    """
    limit = -max_drop / 100 - 1e-9
    return [change for change in changes if change.lost or change.gap.value < limit or change.clean.value < limit]


def comparison_markdown(changes: Sequence[Change], first: str, second: str) -> str:
    """A summary and a table for a pull request, with all names escaped."""
    compared = [change for change in changes if change.gap.n]
    moved = [change for change in compared if change.significant]
    summary = (
        f"**{escape_markdown(second)}** against **{escape_markdown(first)}**: {len(compared)} cells in both, "
        f"{sum(change.gap.value != 0 for change in compared)} changed, {len(moved)} beyond the 95 % interval "
        f"(about {0.05 * len(compared):.0f} would be by chance if all images were new), "
        f"{len(changes) - len(compared)} not comparable."
    )
    head = "defense", "attack", "attacker", "seed", "before", "after", "change (95 %)", "clean (95 %)", "significant"
    order = sorted(changes, key=lambda change: (change.gap.value if change.gap.n else math.inf, str(change.cell)))
    rows = [_row(change) for change in order if change.gap.value != 0 or change.clean.value != 0]
    return f"{summary}\n\n{markdown_table(head, rows, 'lllrrrrrl')}"


def _row(change: Change) -> list[str]:
    cell = change.cell
    words = (escape_markdown(cell.defense), escape_markdown(cell.attack), cell.tier, str(cell.seed))
    significant = "yes" if change.significant else escape_markdown(change.why) or "no"
    rates, gaps = map(_percent, (change.before, change.after)), map(_points, (change.gap, change.clean))
    return [*words, *rates, *gaps, significant]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _points(gap: Estimate) -> str:
    if not gap.n:
        return "–"
    return f"{signed(100 * gap.value)} ({signed(100 * gap.low)} to {signed(100 * gap.high)})"


def _records(folder: Path) -> dict[Cell, Outcome]:
    outcomes = {outcome.cell: outcome for outcome in Store(folder).outcomes()}
    if not outcomes:
        raise InputError(f"Expected records in {folder / 'records'}, but there are none. 'bench run' makes them.")
    return outcomes


def _change(cell: Cell, before: Outcome | None, after: Outcome | None) -> Change:
    rates = _rate(before), _rate(after)
    if before is None or after is None:
        return Change(cell, *rates, NOTHING, NOTHING, "new" if before is None else "gone")
    if before.facts is None or after.facts is None:
        silent = after if after.facts is None else before
        return Change(cell, *rates, NOTHING, NOTHING, silent.status)
    if any(before.fingerprints.get(name) != after.fingerprints.get(name) for name in ("data", "weights")):
        return Change(cell, *rates, NOTHING, NOTHING, "other data or weights")
    design = design_of(cell, after.defense)
    gaps = [_gap(before.facts, after.facts, name, design) for name in ("defended_attacked", "defended_clean")]
    return Change(cell, *rates, gaps[0], gaps[1])


def _gap(before: Facts, after: Facts, name: str, design: Design) -> Estimate:
    old, new = (per_image([one], name, design=design) for one in (before, after))
    return difference(new, old) if old and new else NOTHING


def _rate(outcome: Outcome | None) -> float:
    accuracy = attacked_accuracy(outcome.facts) if outcome and outcome.facts else None
    return accuracy.value if accuracy else math.nan
