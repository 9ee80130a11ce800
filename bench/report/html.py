"""Pages from templates that escape every name, and ask nothing of another host."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.core.text import plain
from bench.records.command import commands
from bench.records.format import Formatted, format_failure
from bench.records.schema import TIERS
from bench.report.board import WORST_CASE, Board
from bench.report.boards import provenance_summary
from bench.report.cell_page import broken_by_stages, costs, measure_labels, strongest_views
from bench.report.checks import NOT_RUN
from bench.report.legend import check_descriptions, column_names, filters, heading_meanings
from bench.report.naming import readable
from bench.report.plugin_docs import plugin_docs
from bench.report.summary import findings, raised, why_not_run
from bench.report.urls import board_anchor, cell_url, model_anchor, plugin_url

_TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """A template of this package with these values."""
    return jinja_environment().get_template(template).render(**values)


def shrink(page: str) -> str:
    """The same page in fewer bytes, without the end tags and quotation marks that HTML does not need.

    All text is escaped, so each `<` begins a tag and each `>` ends one.
    """
    page = re.sub(r"</(?:td|th|tr|thead|tbody|li|dt|dd|option)>", "", page)
    return re.sub(r"<[a-z][^<>]*>", lambda tag: re.sub(r'="([\w.:/#%-]+)"(?=[\s>])', r"=\1", tag[0]), page)


def asset(name: str) -> str:
    """A style sheet or script, as it is."""
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def stylesheet() -> str:
    """The style of all pages."""
    return asset("page.css") + asset("svg_style.css")


def with_assets(page: str) -> str:
    """A page with its style sheet and script inside, which are the only ones its policy allows."""
    style, script = stylesheet(), asset("page.js")
    for marker, content in (("style-src", style), ("script-src", script)):
        digest = b64encode(sha256(content.encode()).digest()).decode()
        page = page.replace(f"{marker} 'none'", f"{marker} 'sha256-{digest}'", 1)
    page = page.replace("</head>", f"<style>{style}</style>\n</head>", 1)
    return page.replace("</body>", f"<script>{script}</script>\n</body>", 1)


@cache
def jinja_environment() -> Environment:
    """The templates; they escape every value, and a missing value is an error."""
    templates = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"column_groups": _column_groups, "plain": plain, "words": _words, "sort_key": _sort_key}
    templates.filters |= {"ticked": _ticked, "board_anchor": board_anchor, "cell_url": cell_url}
    functions = (
        broken_by_stages, check_descriptions, column_names, commands, costs, filters, findings, format_failure,
        heading_meanings, measure_labels, model_anchor, plugin_docs, plugin_url, provenance_summary, raised, readable,
        strongest_views, why_not_run,
    )  # fmt: skip
    templates.globals |= {function.__name__: function for function in functions}
    templates.globals |= {"NOT_RUN": NOT_RUN, "TIERS": TIERS, "WORST_CASE": WORST_CASE}
    return templates


def _words(value: object) -> str:
    """A parameter or a trait as a reader would write it."""
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else "none" if value is None else str(value)


def _sort_key(number: Formatted) -> str:
    """The number to sort by, "" if page.js can read it in the text."""
    if number.value is None or re.fullmatch(r"(?:[≤≥] )?−?[\d.]+×?", number.text):
        return ""
    return f"{number.value:.4g}"


def _ticked(text: str) -> Markup:
    """The text of a docstring, with what is between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped


def _column_groups(board: Board) -> list[tuple[str, str, int]]:
    """(heading, tint, width) of neighbouring columns that share a heading."""
    groups = groupby(board.columns, key=lambda column: (column.group, column.tint))
    return [(group, tint, len(list(members))) for (group, tint), members in groups]
