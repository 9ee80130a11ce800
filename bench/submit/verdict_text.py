"""A verdict in words, for the terminal and for a pull request."""

from __future__ import annotations

from itertools import groupby

from bench.core.text import escape
from bench.submit.agreement import Compared, in_words
from bench.submit.verify import Verdict


def lines(verdict: Verdict) -> list[str]:
    """The verdict, then a line for each cell that was computed again, then what differs."""
    found = [f"{verdict.status}: {verdict.reason}"]
    for (cell, fresh), group in groupby(verdict.compared, key=lambda one: (one.cell, one.fresh)):
        measures = list(group)
        largest = max(measures, key=lambda one: abs(one.gap.value))
        where = "on other images" if fresh else "again"
        word = "right" if all(one.right for one in measures) else "WRONG"
        found.append(
            f"  {word}  {cell.attack}, {cell.tier}, seed {cell.seed}, {where}: {len(measures)} measures; the largest "
            f"difference is {_gap(largest)} in {largest.measure}"
        )
        found += [f"         {in_words(one)}" for one in measures if not one.right]
    return found


def markdown(verdict: Verdict) -> str:
    """The same as a table; names are safe in it."""
    rows = [f"**{verdict.status}**: {escape(verdict.reason)}", ""]
    rows += ["| attack | attacker | images | measure | recorded | again | difference (95 %) | |", "| --- " * 8 + "|"]
    for one in verdict.compared:
        cells = [escape(one.cell.attack), one.cell.tier, "others" if one.fresh else "same", escape(one.measure)]
        cells += [
            f"{100 * one.recorded:.1f}",
            f"{100 * one.again:.1f}",
            _gap(one),
            "right" if one.right else "**wrong**",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _gap(one: Compared) -> str:
    return f"{100 * one.gap.value:+.1f} ({100 * one.gap.low:+.1f} to {100 * one.gap.high:+.1f})"
