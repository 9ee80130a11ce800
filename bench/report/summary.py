"""Flags, each once for all the rows or boards that share it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from bench.report.board import Board, Row
from bench.report.checks import CHECKS
from bench.report.flags import Flag

Standing = tuple[Board, Row]
"""The row of a defense on a board."""
_Key = TypeVar("_Key")
_Member = TypeVar("_Member")


def raised(board: Board, brief: bool = True) -> list[tuple[Flag, str]]:
    """The flags that were raised on a board, red ones first, with the rows that share them.

    What nearly all rows share is said once; if their figures differ, as what the check looks for.
    """
    looks_for = {one.id: one.description for one in CHECKS}
    lines: list[tuple[Flag, str]] = []
    for id in board.common:
        flags = [flag for row in board.rows for flag in row.raised if flag.id == id and flag.colour != "red"]
        alike = flags[0].brief or len(set(flags)) == 1
        flag = flags[0].shortened if alike else replace(flags[0], text=looks_for[id])
        lines.append((flag, f"{len(flags)} of {len(board.rows)} rows"))
    own = group((flag.shortened if brief else flag, row.defense.text) for row in board.rows for flag in board.own(row))
    lines += [(flag, ", ".join(rows)) for flag, rows in own.items()]
    return sorted(lines, key=lambda line: (line[0].colour != "red", line[0].id, line[1]))


def findings(standings: Sequence[Standing]) -> list[tuple[Flag | None, str, str]]:
    """What the boards say about a defense.

    Returns:
        (the flag, the text, the boards that it concerns), red flags first; then why there is no rank, and that no
        check fired. The boards are "" if it concerns all of them.
    """
    budgets = Counter(board.budget for board, _ in standings)
    lines_with_boards: list[tuple[tuple[Flag | None, str], str]] = []
    for board, row in standings:
        flags = [flag.shortened for flag in row.raised]
        lines: list[tuple[Flag | None, str]] = [(flag, flag.text) for flag in flags]
        if row.why_unranked and not any(flag.colour == "red" and flag.id in row.why_unranked for flag in flags):
            lines.append((None, row.why_unranked))
        where = board.budget if budgets[board.budget] == 1 else f"{board.budget}, {board.brief}"
        lines_with_boards += [(line, where) for line in lines or [(None, "No check fired.")]]
    boards = group(lines_with_boards)
    order = sorted(boards, key=lambda one: (one[0] is None, one[0] and (one[0].colour != "red", one[0].id)))
    return [(*one, "; ".join(boards[one]) if len(boards[one]) < len(standings) else "") for one in order]


def why_not_run(standings: Sequence[Standing]) -> dict[str, list[str]]:
    """Why checks could not run on some of the boards: reason -> the checks."""
    checks = group((flag.text, f"{flag.id} {flag.title}") for _, row in standings for flag in row.not_run)
    return {reason: sorted(set(checks[reason])) for reason in sorted(checks, key=lambda one: min(checks[one]))}


def group(pairs: Iterable[tuple[_Key, _Member]]) -> dict[_Key, list[_Member]]:
    """The members of each key, in order."""
    groups: dict[_Key, list[_Member]] = {}
    for key, member in pairs:
        groups.setdefault(key, []).append(member)
    return groups
