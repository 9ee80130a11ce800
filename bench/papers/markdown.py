"""The papers' tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from bench.core.text import escape_markdown, markdown_table
from bench.papers.comparison import ComparedTable, ComparedValue

_INTRODUCTION = """# Reported and measured

Made by `bench tables` from `reported/` and the records in this folder; do not edit. The same as data:
[tables.csv](tables.csv); for LaTeX: [tables.tex](tables.tex), or one file for each table.

Each table has its paper's layout. The first value is as the paper prints it, (blank) where the paper has none. Below
it, in **bold**, is ours with its 95 % interval; its letter stands in the list below the table, which names the records
and what differs from the paper. † gives the red flags of its row: do not trust such a number. *run 1*: not measured
yet; the command with that number measures it (replace names of folders and files with their paths). *n/a 1*: cannot be
measured here, for the reason with that number. Numbers in parentheses are remarks on the paper, including its errors,
which are not corrected.
"""


def tables_markdown(tables: Sequence[ComparedTable]) -> str:
    """All tables as one file."""
    parts = [_INTRODUCTION]
    for paper, group in groupby(tables, key=lambda one: one.paper):
        title, authors, where = map(escape_markdown, (paper.title, paper.authors, paper.where))
        parts += [f"## {title}\n\n{authors}, {where}\n", *map(_table, group)]
    return "\n".join(parts)


def _table(compared: ComparedTable) -> str:
    table = compared.table
    heads = [
        escape_markdown(" · ".join(column.heads)) + _marks(table.marks(None, place))
        for place, column in enumerate(table.columns)
    ]
    rows = [
        [escape_markdown(label) + _marks(notes), *map(_value, values)]
        for (label, notes), values in zip(compared.labels, compared.rows, strict=True)
    ]
    lists = [f"({number}) {escape_markdown(note.text)}" for number, note in enumerate(table.notes, 1)]
    lists += map(escape_markdown, compared.agreements)
    lists += [f"<sup>{letter}</sup> {escape_markdown(one.sentence)}" for letter, one in compared.origins.items()]
    lists += [f"n/a {number}: {escape_markdown(reason)}" for number, reason in enumerate(compared.reasons, 1)]
    lists += [f"run {number}: <code>{escape_markdown(run)}</code>" for number, run in enumerate(compared.runs, 1)]
    parts = [
        f"### {escape_markdown(table.table)}\n",
        f"{escape_markdown(table.caption)} Values in {escape_markdown(table.unit)}.\n",
        markdown_table([escape_markdown(table.corner), *heads], rows, "l" + "r" * len(heads)),
        "".join(f"- {one}\n" for one in lists),
    ]
    return "\n".join(parts)


def _value(value: ComparedValue) -> str:
    printed = escape_markdown(value.printed or "(blank)") + _marks(value.notes)
    number = value.measurement.number
    if number is None:
        return f"{printed}<br>*{value.pointer}*" if value.pointer else printed
    interval = f" ({escape_markdown(number.interval)})" if number.interval else ""
    flags = f" †{escape_markdown(' '.join(value.measurement.flags))}" if value.measurement.flags else ""
    return f"{printed}<br>**{escape_markdown(number.text)}**{interval}<sup>{value.letter}</sup>{flags}"


def _marks(notes: Sequence[int]) -> str:
    return f" <sup>({', '.join(map(str, notes))})</sup>" if notes else ""
