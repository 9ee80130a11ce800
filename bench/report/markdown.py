"""Boards as Markdown, safe against whatever stands in a name."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bench.core.text import escape_markdown
from bench.records.command import commands
from bench.records.schema import Outcome, Tier
from bench.report.board import WORST, Board, Entry, PluginLink
from bench.report.format import Shown, lost
from bench.report.summary import raised

_INTRODUCTION = """# Results

Made by `bench report` from the records in this folder; do not edit. As a site: [site/index.html](site/index.html).

Numbers are percent of **all** images, with 95 % intervals in parentheses. *Oblivious*: attacked images were made on the
model without the defense. *Adaptive*: they were made through the defense, or without it where that hurts more. δ is
clean − attacked accuracy in points, β the share still right of the images that are lost without a defense. In the
worst case an image counts only if it survives every attack. Ranks are shared where the paired interval of the
difference holds zero. No flag means that no check fired, never that a defense is robust.
"""


def page(boards: Sequence[Board], homeless: Sequence[Outcome]) -> str:
    """The whole file."""
    parts = [_INTRODUCTION]
    if not boards:
        parts.append("There are no records yet.\n")
    for (dataset, model), group in groupby(boards, key=lambda one: (one.setting.dataset, one.setting.model)):
        parts.append(f"## {escape_markdown(dataset)} · {escape_markdown(model)}\n")
        parts += [_board(board) for board in group]
    if homeless:
        parts.append("## Cells whose attack could not be made\n")
        parts.append("".join(f"- {escape_markdown(lost(one))}\n" for one in homeless))
    return "\n".join(parts)


def _board(board: Board) -> str:
    parts = [f"### {escape_markdown(board.budget)}\n", f"{escape_markdown(board.conditions)}\n", _wide(board)]
    notes = [f"({number}) {note}" for number, note in enumerate(board.footnotes, 1)] + list(board.remarks)
    notes += [f"{flag.id} {rows}: {flag.title}. {flag.text}" for flag, rows in raised(board)]
    if notes:
        parts.append("".join(f"- {escape_markdown(note)}\n" for note in notes))
    parts.append("<details><summary>Every cell, and what computes them</summary>\n")
    parts.append("".join(f"<code>{escape_markdown(one)}</code>\n\n" for one in commands(board.cells)))
    parts.append(_long(board))
    parts.append("</details>\n")
    return "\n".join(parts)


def _wide(board: Board) -> str:
    """A line for each defense."""
    tiers = [f" ({column.tint})" if column.tint else "" for column in board.columns]
    labels = [f"{escape_markdown(column.label)}{tier}" for column, tier in zip(board.columns, tiers, strict=True)]
    head = ["rank", "defense", "clean", *labels, "flags"]
    lines = [_line(head), _line(["---", "---", *("--:" for _ in head[2:-1]), "---"])]
    for row in board.rows:
        badges = ", ".join(f"**{one.id}**" if one.colour == "red" else one.id for one in row.badges)
        lines.append(_line([row.rank, _plugin(row.defense), *(_cell(one) for one in (row.clean, *row.cells)), badges]))
    return "".join(lines)


def _long(board: Board) -> str:
    """A line for each cell."""
    head = ["defense", "attack", "attacker", "attacked", "δ", "β", "ASR", "8-bit", "beyond occlusion", "queries"]
    lines = [_line(head), _line(["---", "---", "---", *("--:" for _ in head[3:])])]
    for (defense, attack, tier), entry in board.entries.items():
        if attack != WORST:
            lines.append(_line(_entry(defense, attack, tier, entry)))
    return "".join(lines)


def _entry(defense: str, attack: str, tier: Tier, entry: Entry) -> list[str]:
    names = ("attacked_accuracy", "delta", "beta", "attack_success", "accuracy_8bit", "adversarial_effect")
    numbers = [_cell(entry.numbers.get(name, Shown())) for name in names]
    return [escape_markdown(defense), escape_markdown(attack), tier, *numbers, escape_markdown(entry.queries)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _plugin(plugin: PluginLink) -> str:
    name = escape_markdown(plugin.text)
    return f"[{name}]({plugin.link})" if plugin.link else name


def _cell(shown: Shown) -> str:
    parts = [escape_markdown(shown.text), shown.suffix, f"({shown.interval})" if shown.interval else ""]
    note = f"<sup>({shown.note})</sup>" if shown.note else ""
    return " ".join(part for part in parts if part) + note
