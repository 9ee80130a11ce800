"""How pages are made: templates in which every name is escaped, and files that ask nothing of another host."""

from __future__ import annotations

import re
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.core.text import plain
from bench.report.board import WORST, Board
from bench.report.format import Shown, failed
from bench.report.legend import choices, column_names, meanings
from bench.report.summary import costs, findings, measures, raised, unchecked, views
from bench.report.urls import anchor, cell_page, place, plugin_page

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **given: Any) -> str:
    """A template of this package with these values."""
    return environment().get_template(template).render(**given)


def lean(page: str) -> str:
    """The same page in fewer bytes, without the end tags and the quotation marks that HTML lets one leave out.

    All text is escaped, so that each `<` begins a tag, and each `>` ends one.
    """
    page = re.sub(r"</(?:td|th|tr|thead|tbody|li|dt|dd|option)>", "", page)
    return re.sub(r"<[a-z][^<>]*>", lambda tag: re.sub(r'="([\w.:/#%-]+)"(?=[\s>])', r"=\1", tag[0]), page)


def asset(name: str) -> str:
    """A file that the pages share, as it is."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    """Where the templates are; whatever stands in a name is escaped, and a name that is not given is an error."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "column_groups": _column_groups,
        "anchor": anchor,
        "cell_page": cell_page,
        "plain": plain,
        "words": _words,
        "sort_key": _sort_key,
        "ticked": _ticked,
    }
    functions = (
        choices,
        column_names,
        costs,
        failed,
        findings,
        meanings,
        measures,
        place,
        plugin_page,
        raised,
        unchecked,
        views,
    )
    made.globals |= {function.__name__: function for function in functions}
    made.globals |= {"WORST": WORST}
    return made


def _words(value: object) -> str:
    """A parameter or a trait as a reader would say it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _sort_key(shown: Shown) -> str:
    """What a sort goes by, "" where that is what page.js reads in the text itself."""
    if shown.value is None or re.fullmatch(r"(?:[≤≥] )?−?[\d.]+×?", shown.text):
        return ""
    return f"{shown.value:.4g}"


def _ticked(text: str) -> Markup:
    """Text of a docstring, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped


def _column_groups(board: Board) -> list[tuple[str, str, int]]:
    """(heading, tint, width) of neighbouring columns with one heading."""
    named = groupby(board.columns, key=lambda column: (column.group, column.tint))
    return [(group, tint, len(list(members))) for (group, tint), members in named]
