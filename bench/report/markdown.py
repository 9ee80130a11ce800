"""Boards as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from bench.core.text import escape_markdown, markdown_table
from bench.records.command import commands
from bench.records.format import Formatted, failure_line
from bench.records.schema import Outcome
from bench.report.board import WORST_CASE, Board, PluginLink
from bench.report.summary import raised

_INTRODUCTION = """# Results

Made by `bench report` from the records in this folder; do not edit. To sort and filter, open [index.html](index.html)
in a browser.

Numbers are percent of **all** images, with 95 % intervals in parentheses. *Oblivious*: the attack was made on the model
without the defense. *Adaptive*: it was made through the defense, or without it where that hurts more. δ is
clean − attacked accuracy in points; β is the share still correct of the images that are lost without a defense. In the
worst case an image counts only if it survives every attack. Rows share a rank if the paired interval of their
difference holds zero. No flag means that no check fired, never that a defense is robust.
"""
_MEASURES = {
    "attacked_accuracy": "attacked",
    "delta": "δ",
    "beta": "β",
    "attack_success": "ASR",
    "accuracy_8bit": "8-bit",
    "adversarial_effect": "beyond occlusion",
}


def boards_markdown(boards: Sequence[Board], unknown: Sequence[Outcome]) -> str:
    """All boards as one file.

    Args:
        boards: in order.
        unknown: failed records whose attack is unknown.
    """
    parts = [_INTRODUCTION]
    if not boards:
        parts.append("There are no records yet.\n")
    for (dataset, model), group in groupby(boards, key=lambda one: (one.conditions.dataset, one.conditions.model)):
        parts.append(f"## {escape_markdown(dataset)} · {escape_markdown(model)}\n")
        parts += [_board(board) for board in group]
    if unknown:
        parts.append("## Cells whose attack could not be made\n")
        parts.append(_bullets(map(failure_line, unknown)))
    return "\n".join(parts)


def _board(board: Board) -> str:
    parts = [f"### {escape_markdown(board.budget)}\n", f"{escape_markdown(board.description)}\n", _defenses(board)]
    notes = [f"({number}) {note}" for number, note in enumerate(board.footnotes, 1)] + list(board.remarks)
    notes += [f"{flag.id} {rows}: {flag.title}. {flag.text}" for flag, rows in raised(board)]
    if notes:
        parts.append(_bullets(notes))
    parts.append("<details><summary>Every cell, and the commands that compute them</summary>\n")
    parts += [f"<code>{escape_markdown(one)}</code>\n" for one in commands(board.outcomes)]
    parts.append(f"\n{_cells(board)}")
    parts.append("</details>\n")
    return "\n".join(parts)


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"- {escape_markdown(one)}\n" for one in lines)


def _defenses(board: Board) -> str:
    """A row for each defense."""
    labels = [escape_markdown(one.label) + (f" ({one.tint})" if one.tint else "") for one in board.columns]
    rows = []
    for row in board.rows:
        flags = ", ".join(f"**{one.id}**" if one.colour == "red" else one.id for one in board.own(row))
        rows.append([row.rank, _link(row.defense), *map(_number, (row.clean, *row.cells)), flags])
    head = ["rank", "defense", "clean", *labels, "flags"]
    return markdown_table(head, rows, f"ll{'r' * (1 + len(labels))}l")


def _cells(board: Board) -> str:
    """A row for each cell."""
    rows = [
        [
            escape_markdown(defense),
            escape_markdown(attack),
            tier,
            *(_number(entry.numbers.get(name, Formatted())) for name in _MEASURES),
            escape_markdown(entry.queries),
        ]
        for (defense, attack, tier), entry in board.entries.items()
        if attack != WORST_CASE
    ]
    return markdown_table(["defense", "attack", "attacker", *_MEASURES.values(), "queries"], rows, f"lll{'r' * 7}")


def _link(plugin: PluginLink) -> str:
    name = escape_markdown(plugin.text)
    return f"[{name}]({plugin.arxiv})" if plugin.arxiv else name


def _number(number: Formatted) -> str:
    interval = f"({number.interval})" if number.interval else ""
    note = f"<sup>({number.note})</sup>" if number.note else ""
    return " ".join(part for part in (escape_markdown(number.text), number.suffix, interval) if part) + note
