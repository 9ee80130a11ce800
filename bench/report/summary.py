"""What a page says once for several boards instead of once for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from bench.report.board import Board, Row
from bench.report.flags import Flag

Standing = tuple[Board, Row]
"""The row of a defense on a board."""


class Finding(NamedTuple):
    """What there is to say about a defense.

    Attributes:
        id, colour, title: of the check, "" if the finding is not from a check.
        text: what was found.
        where: the boards that it concerns, "" for all of them.
    """

    id: str
    colour: str
    title: str
    text: str
    where: str = ""


def findings(standings: Sequence[Standing]) -> list[Finding]:
    """What the checks found on these boards, red first, and why there is no rank."""
    budgets = Counter(board.budget for board, _ in standings)
    found: dict[Finding, list[str]] = {}
    for board, row in standings:
        name = board.budget if budgets[board.budget] == 1 else f"{board.budget}, {board.brief}"
        for one in _findings(row):
            found.setdefault(one, []).append(name)
    order = sorted(found, key=lambda one: (one.id == "", one.colour != "red", one.id))
    return [one._replace(where="; ".join(found[one]) if len(found[one]) < len(standings) else "") for one in order]


def _findings(row: Row) -> list[Finding]:
    flags = [flag.shortened for flag in row.raised]
    found = [Finding(flag.id, flag.colour, flag.title, flag.text) for flag in flags]
    barring = ", ".join(flag.id for flag in flags if flag.bars_rank)
    if row.why_unranked and not (barring and row.why_unranked.endswith(f" {barring}.")):
        found.append(Finding("", "", "", row.why_unranked))
    return found or [Finding("", "", "", "No check fired.")]


def raised(board: Board) -> list[tuple[Flag, str]]:
    """The flags that were raised, red ones first, each once with the rows that share it."""
    rows: dict[Flag, list[str]] = {}
    for flag, names in board.raised:
        rows.setdefault(flag.shortened, []).append(names)
    return [(flag, ", ".join(names)) for flag, names in rows.items()]


def why_not_run(standings: Sequence[Standing]) -> dict[str, list[str]]:
    """Why checks could not run on some of the boards: reason -> the checks."""
    checks: dict[str, set[str]] = {}
    for _, row in standings:
        for flag in row.not_run:
            checks.setdefault(flag.text, set()).add(f"{flag.id} {flag.title}")
    return {reason: sorted(checks[reason]) for reason in sorted(checks, key=lambda one: min(checks[one]))}
