"""What guides a reader of the boards: filters, columns to choose from, and what headings and checks mean."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.schema import TIERS
from bench.report.board import Board
from bench.report.checks import CHECKS

_WORDS = {
    "rank": "By the worst case against the adaptive attacker where there is one, else the oblivious one. Rows share a "
    "rank where the paired interval of their difference holds zero. Rows with a red flag, with a missing attack, or "
    "with an interval wider than ± 5 points are shown and not ranked.",
    "clean": "Accuracy when nobody attacks.",
    "worst case": "An image counts only if it survives every attack of the column group. ≤: an attack that other rows "
    "have met is missing here, and can only lower the number.",
    "δ": "Clean − attacked accuracy in points; smaller is better.",
    "β": "The share still right of the images that the same attack takes from the model without the defense; how many "
    "those are stands beside it.",
}
"""Heading of a board -> what it means."""


def choices(boards: Sequence[Board]) -> dict[str, tuple[str, list[str]]]:
    """Filter -> its heading and values; one with a single value is left out, for there is nothing to choose."""
    settings = [board.setting for board in boards]
    kinds = {row.defense.kind for board in boards for row in board.rows if not row.baseline}
    attacks = {one.text for board in boards for tier in TIERS for one in board.attacks[tier]}
    tiers = [tier for tier in (*TIERS, "certified") if any(c.tint == tier for b in boards for c in b.columns)]
    found: dict[str, tuple[str, list[str]]] = {
        "dataset": ("data set", sorted({one.dataset for one in settings})),
        "model": ("model", sorted({one.model for one in settings})),
        "threat": ("threat model", sorted({one.threat_model for one in settings})),
        "goal": ("goal", sorted({one.goal for one in settings})),
        "effort": ("effort", sorted({one.effort for one in settings})),
        "kind": ("kind", sorted(kinds - {""})),
        "tier": ("attacker", tiers),
        "attack": ("attack", sorted(attacks)),
    }
    return {key: (label, values) for key, (label, values) in found.items() if len(values) > 1}


def column_names(boards: Sequence[Board]) -> list[str]:
    """What columns there are to choose from, on any board, in the order of their first place."""
    labels = [column.label for board in boards for column in board.columns]
    return list(dict.fromkeys(["clean", *sorted(labels, key=lambda one: one not in ("worst case", "δ", "β"))]))


def meanings(boards: Sequence[Board]) -> dict[str, str]:
    """What the headings of the boards mean."""
    found = {column.label: column.hint for board in boards for column in board.columns if not column.attack}
    return _WORDS | {label: hint for label, hint in found.items() if label not in _WORDS and hint}


def told_checks() -> list[tuple[str, str]]:
    """(id, what it looks for) of every check that reads records, from the first lines of their docstrings."""
    lines = [(check.__doc__ or "").split("\n")[0] for check in CHECKS]
    return sorted((line.partition(": ")[0], line.partition(": ")[2]) for line in lines)
