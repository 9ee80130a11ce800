"""The papers' tables as a Markdown file and as one page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup

from bench.core.text import escape_markdown
from bench.papers.fill import Filled, Value
from bench.report.html import asset, render

_INTRODUCTION = """# Reported and measured

Made by `bench tables` from `reported/` and the records in this folder; do not edit. As a page:
[index.html](index.html). As data: [tables.csv](tables.csv). For LaTeX: [tables.tex](tables.tex), or one file a table.

Each table has its paper's layout. First stands the value as it is printed there, (blank) where the paper has none.
Under it, **bold**, our own with its 95 % interval; its letter says below the table which records it is from, and what
differs from the paper. † names the red flags of its row: such a number is not to be trusted. *run 1*: nobody has
measured this yet, and the command with that number would (folders and files are to be written out). *n/a 1*: nothing
here can stand beside it, for the reason with that number. Numbers in parentheses are remarks on the paper, errors
included; nothing is mended.
"""


def markdown(tables: Sequence[Filled]) -> str:
    """The whole file."""
    parts = [_INTRODUCTION]
    for paper, group in groupby(tables, key=lambda one: one.paper):
        parts.append(
            f"## {escape_markdown(paper.title)}\n\n{escape_markdown(paper.authors)}, {escape_markdown(paper.where)}\n"
        )
        parts += [_table(one) for one in group]
    return "\n".join(parts)


def _table(filled: Filled) -> str:
    table = filled.table
    heads = [
        escape_markdown(" · ".join(column.heads)) + _sup(table.marks(None, place))
        for place, column in enumerate(table.columns)
    ]
    lines = [_line([escape_markdown(table.corner), *heads]), _line(["---", *("--:" for _ in heads)])]
    for (label, notes), values in zip(filled.labels, filled.rows, strict=True):
        lines.append(_line([escape_markdown(label) + _sup(notes), *map(_value, values)]))
    parts = [
        f"### {escape_markdown(table.table)}\n",
        f"{escape_markdown(table.caption)} Values in {escape_markdown(table.unit)}.\n",
        "".join(lines),
    ]
    told = [f"({number}) {escape_markdown(note.text)}" for number, note in enumerate(table.notes, 1)]
    told += [escape_markdown(one) for one in filled.orders]
    told += [f"<sup>{letter}</sup> {escape_markdown(source.sentence)}" for letter, source in filled.sources.items()]
    told += [f"n/a {number}: {escape_markdown(reason)}" for number, reason in enumerate(filled.reasons, 1)]
    told += [f"run {number}: <code>{escape_markdown(run)}</code>" for number, run in enumerate(filled.runs, 1)]
    parts.append("".join(f"- {one}\n" for one in told))
    return "\n".join(parts)


def _value(value: Value) -> str:
    printed = escape_markdown(value.printed or "(blank)") + _sup(value.notes)
    shown = value.beside.shown
    if shown is None:
        pointer = f"run {value.run}" if value.run else f"n/a {value.reason}" if value.reason else ""
        return f"{printed}<br>*{pointer}*" if pointer else printed
    interval = f" ({escape_markdown(shown.interval)})" if shown.interval else ""
    flags = f" †{escape_markdown(' '.join(value.beside.flags))}" if value.beside.flags else ""
    return f"{printed}<br>**{escape_markdown(shown.text)}**{interval}<sup>{value.letter}</sup>{flags}"


def _sup(notes: Sequence[int]) -> str:
    return f" <sup>({', '.join(map(str, notes))})</sup>" if notes else ""


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def page(tables: Sequence[Filled]) -> str:
    """One page that asks nothing of anybody; whatever stands in a name is escaped."""
    papers = [(paper, list(group)) for paper, group in groupby(tables, key=lambda one: one.paper)]
    style = Markup(asset("page.css"))  # noqa: S704  # a file of this package
    return render("tables.html.j2", papers=papers, style=style)
