"""Boards as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from bench.core.text import escape_markdown, markdown_table
from bench.records.command import commands
from bench.records.format import Formatted, failure_line
from bench.records.schema import Outcome
from bench.report.answers import BoardAnswer, make_answers
from bench.report.board import WORST_CASE, Board, PluginLink
from bench.report.flags import Flag
from bench.report.legend import check_descriptions
from bench.report.naming import readable
from bench.report.summary import raised
from bench.report.urls import file_name

_INTRODUCTION = """Made by `bench report` from the records in this folder; do not edit. To sort and filter, open
index.html in a browser.

Numbers are percent of **all** images, with 95 % intervals in parentheses. *Oblivious*: the attack was made on the model
without the defense. *Adaptive*: it was made through the defense, or without it where that hurts more. δ is
clean − attacked accuracy in points; β is the share still correct of the images that are lost without a defense. In the
worst case an image counts only if it survives every attack. A rank is one more than the number of rows that are better
beyond the paired interval, with Holm's correction for the number of rows; what is not better than no defense is below
that line. No flag means that no check fired, never that a defense is robust.
"""
INLINE = 40_000
"""Boards that no benchmark is about stand in README.md if they have fewer characters than this."""
_MEASURES = {
    "attacked_accuracy": "attacked",
    "delta": "δ",
    "beta": "β",
    "attack_success": "ASR",
    "accuracy_8bit": "8-bit",
    "adversarial_effect": "beyond occlusion",
}


def markdown_files(boards: Sequence[Board], unknown: Sequence[Outcome]) -> dict[str, str]:
    """README.md with the answers, and a file with every number for each data set and model: address -> text.

    Args:
        boards: in order.
        unknown: failed records whose attack is unknown.
    """
    files: dict[str, str] = {}
    for (dataset, model), group in groupby(boards, key=lambda one: (one.conditions.dataset, one.conditions.model)):
        head = (
            f"# {escape_markdown(readable(dataset, model))}\n\n{escape_markdown(dataset)} · {escape_markdown(model)}\n"
        )
        files[_address(dataset, model)] = "\n".join([head, _INTRODUCTION, *map(_board, group)])
    return {"README.md": _readme(boards, unknown)} | files


def _address(dataset: str, model: str) -> str:
    return f"boards/{file_name(readable(dataset, model), dataset, model)}.md"


def _readme(boards: Sequence[Board], unknown: Sequence[Outcome]) -> str:
    answers = make_answers(boards)
    parts = [f"# Results\n\n{_INTRODUCTION}"]
    if not boards:
        parts.append("There are no records yet.\n")
    if answers:
        parts.append("".join(f"- [{escape_markdown(one.title)}](#{_slug(one.title)})\n" for one in answers))
    if answers and not answers[0].board.benchmark:
        parts.append("No benchmark has records yet. These are the largest comparisons so far.\n")
    parts += map(_answer, answers)
    if boards and not any(board.benchmark for board in boards):
        whole = "\n".join(_by_model(boards))
        parts += [whole] if len(whole) < INLINE else []
    if boards:
        parts.append("## Every number\n\nEvery cell, with the commands that compute them:\n")
        models = dict.fromkeys((one.conditions.dataset, one.conditions.model) for one in boards)
        links = [
            f"- [{escape_markdown(readable(*one))}]({_address(*one)}): {escape_markdown(one[0])}\n" for one in models
        ]
        parts.append("".join(links))
        parts.append("## The flags\n")
        parts.append(_bullets(f"{id} {title}: {text}" for id, title, text in check_descriptions()))
    if unknown:
        parts.append("## Cells whose attack could not be made\n")
        parts.append(_bullets(map(failure_line, unknown)))
    return "\n".join(parts)


def _by_model(boards: Sequence[Board]) -> Iterator[str]:
    """Whole boards under the exact names of their data set and model."""
    for names, group in groupby(boards, key=lambda one: (one.conditions.dataset, one.conditions.model)):
        yield f"## {escape_markdown(' · '.join(names))}\n"
        yield from (_board(board, "###") for board in group)


def _slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _answer(answer: BoardAnswer) -> str:
    """A benchmark: its sentences, and a row for each defense."""
    board, conditions = answer.board, answer.board.conditions
    head = ["rank", "defense", board.basis, "clean", "oblivious", "certified", "time", "flags"]
    rows, section = [], ""
    for row in board.rows:
        if row.section and row.section != section:
            section = row.section
            rows.append(["", f"*{section}*", *[""] * 6])
        numbers = (answer.attacked(row), row.clean, answer.attacked(row, "oblivious"))
        more = (answer.certified(row).text, answer.time(row).text)
        rows.append([row.rank, _link(row.defense), *map(_number, numbers), *more, _flags(board.own(row))])
    words = (
        f"{readable(conditions.dataset, conditions.model)} · {board.budget} · {board.description}",
        *answer.sentences,
    )
    table = markdown_table(head, rows, "llrrrrrl")
    said = [f"{flag.id} {flag.title}, {rows}: {flag.text}" for flag, rows in raised(board) if flag.id in board.common]
    return "\n".join([f"## {escape_markdown(answer.title)}\n", _bullets(words), table, _bullets(said)])


def _flags(flags: Sequence[Flag]) -> str:
    return ", ".join(f"**{one.id} {one.title}**" if one.colour == "red" else one.id for one in flags)


def _board(board: Board, heading: str = "##") -> str:
    parts = [f"{heading} {escape_markdown(board.name)}\n", f"{escape_markdown(board.description)}\n", _defenses(board)]
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
        numbers = map(_number, (row.clean, *row.cells))
        rows.append([row.rank, _link(row.defense), row.section, *numbers, _flags(board.own(row))])
    head = ["rank", "defense", "", "clean", *labels, "flags"]
    return markdown_table(head, rows, f"lll{'r' * (1 + len(labels))}l")


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
