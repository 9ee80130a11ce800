"""A verdict in words, for the terminal and for a pull request."""

from __future__ import annotations

from itertools import groupby

from bench.core.text import escape_markdown, markdown_table
from bench.submit.agreement import Compared, in_words
from bench.submit.verify import Verdict


def verdict_lines(verdict: Verdict) -> list[str]:
    """The verdict, then a line for each cell that was computed again, then what differs."""
    lines = [f"{verdict.status}: {verdict.reason}"]
    for (cell, other_images), group in groupby(verdict.compared, key=lambda one: (one.cell, one.other_images)):
        measures = list(group)
        largest = max(measures, key=lambda measure: abs(measure.gap.value))
        place = "on other images" if other_images else "again"
        word = "right" if all(measure.right for measure in measures) else "WRONG"
        lines.append(
            f"  {word}  {cell.attack}, {cell.tier}, seed {cell.seed}, {place}: {len(measures)} measures; the largest "
            f"difference is {_gap(largest)} in {largest.measure}"
        )
        lines += [f"         {in_words(measure)}" for measure in measures if not measure.right]
    return lines


def verdict_markdown(verdict: Verdict) -> str:
    """The same as a table; names are safe in it."""
    head = "attack", "attacker", "images", "measure", "recorded", "again", "difference (95 %)", ""
    rows = [
        [
            escape_markdown(measure.cell.attack),
            measure.cell.tier,
            "others" if measure.other_images else "same",
            escape_markdown(measure.measure),
            f"{100 * measure.recorded:.1f}",
            f"{100 * measure.again:.1f}",
            _gap(measure),
            "right" if measure.right else "**wrong**",
        ]
        for measure in verdict.compared
    ]
    return f"**{verdict.status}**: {escape_markdown(verdict.reason)}\n\n{markdown_table(head, rows, 'l' * len(head))}"


def _gap(compared: Compared) -> str:
    gap = compared.gap
    return f"{100 * gap.value:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f})"
