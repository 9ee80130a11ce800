"""What helps to read the boards: filters, columns to choose from, and what headings and checks mean."""

from __future__ import annotations

from collections.abc import Sequence

from bench.records.schema import TIERS
from bench.report.board import Board
from bench.report.checks import CHECKS

_MEANINGS = {
    "rank": "By the worst case against the adaptive attacker if there is one, else against the oblivious one: one "
    "more than the number of rows that are better beyond the paired interval, with Holm's correction for the number of "
    "rows. What is not better than no defense is below that line and has no rank; nor has a row with a red flag, and "
    "no row gains from that.",
    "clean": "Accuracy without an attack.",
    "worst case": "An image counts only if it survives every attack of the column group. ≤: this row has no number "
    "against an attack that others met, which can only lower the number.",
    "δ": "Clean − attacked accuracy in points; smaller is better.",
    "β": "The share still correct of the images that the same attack takes from the model without the defense, and how "
    "many those are.",
}
"""Heading of a board -> what it means."""


def filters(boards: Sequence[Board]) -> dict[str, tuple[str, list[str]]]:
    """Filter -> its heading and values; filters with a single value are left out."""
    conditions = [board.conditions for board in boards]
    choices = {
        "dataset": ("data set", {one.dataset for one in conditions}),
        "model": ("model", {one.model for one in conditions}),
        "threat": ("threat model", {one.threat_model for one in conditions}),
        "goal": ("goal", {one.goal for one in conditions}),
        "effort": ("effort", {one.effort for one in conditions}),
        "kind": ("kind", {row.defense.kind for board in boards for row in board.rows if not row.baseline} - {""}),
        "tier": ("attacker", {column.tint for board in boards for column in board.columns} - {""}),
        "attack": ("attack", {one.text for board in boards for tier in TIERS for one in board.attacks[tier]}),
    }
    order = (*TIERS, "certified")
    return {
        key: (label, sorted(values, key=lambda one: (order.index(one) if key == "tier" else 0, one)))
        for key, (label, values) in choices.items()
        if len(values) > 1
    }


def column_names(boards: Sequence[Board]) -> list[str]:
    """The columns of all boards, the most important first."""
    labels = [column.label for board in boards for column in board.columns]
    return list(dict.fromkeys(["clean", *sorted(labels, key=lambda one: one not in _MEANINGS)]))


def heading_meanings(boards: Sequence[Board]) -> dict[str, str]:
    """What the headings of the boards mean."""
    hints = {column.label: column.hint for board in boards for column in board.columns if not column.attack}
    return _MEANINGS | {label: hint for label, hint in hints.items() if label not in _MEANINGS}


def check_descriptions() -> list[tuple[str, str, str]]:
    """(id, title, what it looks for) of every check that runs."""
    return sorted((check.id, check.title, check.description) for check in CHECKS)
