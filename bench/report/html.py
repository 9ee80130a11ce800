"""Boards as one page that stands alone: it opens from a file and asks nothing of anybody."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.report.board import WORST, Board
from bench.report.checks import CHECKS, NOT_RUN

_TEMPLATES = Path(__file__).parent / "templates"


def page(boards: Sequence[Board], homeless: Sequence[str]) -> str:
    """The whole page; every name is escaped, and only the one script whose hash is stated may run."""
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    groups = [
        (dataset, model, list(group))
        for (dataset, model), group in groupby(boards, key=lambda one: (one.setting.dataset, one.setting.model))
    ]
    return (
        _environment()
        .get_template("index.html.j2")
        .render(
            groups=groups,
            homeless=homeless,
            checks=_told_checks(),
            not_run=NOT_RUN,
            worst=WORST,
            style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),  # noqa: S704  # a file of this package
            script=Markup(script),  # noqa: S704  # the same
            script_hash=digest,
        )
    )


def anchor(board: Board) -> str:
    """A name for links to a board that stays the same as long as its setting does."""
    words = [str(value) for value in vars(board.setting).values()]
    readable = re.sub(r"[^A-Za-z0-9]+", "-", f"{board.setting.dataset}-{board.budget}").strip("-").lower()[:40]
    return f"{readable}-{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:6]}"


def column_groups(board: Board) -> list[tuple[str, str, int]]:
    """(heading, tint, width) of neighbouring columns with one heading."""
    named = groupby(board.columns, key=lambda column: (column.group, column.tint))
    return [(group, tint, len(list(members))) for (group, tint), members in named]


def _told_checks() -> list[tuple[str, str]]:
    """(id, what it looks for) of every check that reads records, from the first lines of their docstrings."""
    lines = [(check.__doc__ or "").split("\n")[0] for check in CHECKS]
    return sorted((line.partition(": ")[0], line.partition(": ")[2]) for line in lines)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"column_groups": column_groups, "anchor": anchor}
    return environment
