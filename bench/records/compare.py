"""Two results folders side by side: what changed in each cell, with paired intervals."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench.core.identity import without_hashes
from bench.core.text import escape_markdown, markdown_table, signed
from bench.errors import InputError
from bench.plugins.specs import check_known
from bench.records.intervals import NOTHING, Estimate, difference
from bench.records.metrics import Design, attacked_accuracy, per_image
from bench.records.samples import design_of
from bench.records.schema import Cell, Facts, Outcome, split_words
from bench.records.store import Store

_ANY: dict[str, Any] = asdict(Cell("", "", "", "", "oblivious"))
"""Takes the place of what two cells may differ in."""


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


def compare_folders(first: Path, second: Path, first_words: str = "", second_words: str = "") -> list[Change]:
    """Every cell that one of the two has, in order.

    Two cells that differ only in the hashes of their files are one if no other differs only in those.

    Args:
        first, second: results folders.
        first_words, second_words: `key=value` words that choose the cells of each, such as `model=resnet20` and
            `model=resnet50`. Cells are paired by all that these words do not name.

    Raises:
        InputError: a folder holds no such records, or several of them would be one.
    """
    keys = {*split_words(first_words), *split_words(second_words)}
    for key in sorted(keys):
        check_known(key, _ANY, "key of a cell")
    before, after = _records(first, first_words, keys), _records(second, second_words, keys)
    alone = [_by_text(set(own) - set(others)) for own, others in ((before, after), (after, before))]
    for text, own in alone[0].items():
        if len(own) == len(alone[1].get(text, [])) == 1:
            before[alone[1][text][0]] = before.pop(own[0])
    cells = sorted({*before, *after}, key=str)
    free = {"weights"} if "model" in keys else set()
    return [_change(cell, before.get(cell), after.get(cell), free) for cell in cells]


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
    head = (
        "data",
        "model",
        "defense",
        "attack",
        "attacker",
        "seed",
        "before",
        "after",
        "change (95 %)",
        "clean (95 %)",
        "significant",
    )
    order = sorted(changes, key=lambda change: (change.gap.value if change.gap.n else math.inf, str(change.cell)))
    rows = [_row(change) for change in order if change.gap.value != 0 or change.clean.value != 0]
    return f"{summary}\n\n{markdown_table(head, rows, 'lllllrrrrrl')}"


def _row(change: Change) -> list[str]:
    cell = change.cell
    texts = map(without_hashes, (cell.dataset, cell.model, cell.defense, cell.attack))
    words = (*map(escape_markdown, texts), cell.tier, str(cell.seed))
    significant = "yes" if change.significant else escape_markdown(change.why) or "no"
    rates, gaps = map(_percent, (change.before, change.after)), map(_points, (change.gap, change.clean))
    return [*words, *rates, *gaps, significant]


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _points(gap: Estimate) -> str:
    if not gap.n:
        return "–"
    return f"{signed(100 * gap.value)} ({signed(100 * gap.low)} to {signed(100 * gap.high)})"


def _records(folder: Path, words: str, keys: Collection[str]) -> dict[Cell, Outcome]:
    """The chosen records by their cells, without what `keys` name."""
    outcomes: dict[Cell, Outcome] = {}
    for outcome in Store(folder).select(words):
        cell = replace(outcome.cell, **{key: _ANY[key] for key in keys})
        if known := outcomes.get(cell):
            raise InputError(f"Expected one cell for each pair, but {words!r} chooses {known.cell} and {outcome.cell}.")
        outcomes[cell] = outcome
    if not outcomes:
        chosen = f" with {words!r}" if words else ""
        raise InputError(
            f"Expected records{chosen} in {folder / 'records'}, but there are none. 'bench run' makes them."
        )
    return outcomes


def _change(cell: Cell, before: Outcome | None, after: Outcome | None, free: Collection[str] = ()) -> Change:
    """The change of a cell, whose texts may be those of two; fingerprints in `free` may differ."""
    cell = _joined([one.cell for one in (before, after) if one]) if before and after else cell
    if before is None or after is None:
        cell = (before or after).cell  # type: ignore[union-attr]  # one of them is there
    rates = _rate(before), _rate(after)
    if before is None or after is None:
        return Change(cell, *rates, NOTHING, NOTHING, "new" if before is None else "gone")
    if before.facts is None or after.facts is None:
        silent = after if after.facts is None else before
        return Change(cell, *rates, NOTHING, NOTHING, silent.status)
    if any(before.fingerprints.get(name) != after.fingerprints.get(name) for name in {"data", "weights"} - set(free)):
        return Change(cell, *rates, NOTHING, NOTHING, "other data or weights")
    design = design_of(cell, after.defense)
    gaps = [_gap(before.facts, after.facts, name, design) for name in ("defended_attacked", "defended_clean")]
    return Change(cell, *rates, gaps[0], gaps[1])


def _joined(cells: Sequence[Cell]) -> Cell:
    """A cell that says what it is before and after."""
    first, second = cells
    pairs = {key: (getattr(first, key), getattr(second, key)) for key in ("dataset", "model", "attack", "defense")}
    texts: dict[str, Any] = {key: " → ".join(dict.fromkeys(pair)) for key, pair in pairs.items()}
    return replace(first, **texts)


def _gap(before: Facts, after: Facts, name: str, design: Design) -> Estimate:
    old, new = (per_image([one], name, design=design) for one in (before, after))
    return difference(new, old) if old and new else NOTHING


def _rate(outcome: Outcome | None) -> float:
    accuracy = attacked_accuracy(outcome.facts) if outcome and outcome.facts else None
    return accuracy.value if accuracy else math.nan
