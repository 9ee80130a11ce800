"""A board for readers with a minute: its best rows, and in words what is best, at what cost, and what failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median

from bench.core.text import plain
from bench.records.format import DASH, Formatted
from bench.records.schema import Tier
from bench.report.board import WORST_CASE, Board, Row
from bench.report.evidence import NO_BETTER
from bench.report.naming import readable

_MOST = 10
"""Rows of the short table."""
_FEWEST = 5
"""Rows that a board needs to be shown first where no benchmark has records."""


def first_boards(boards: Sequence[Board]) -> list[Board]:
    """The boards that come first: those of benchmarks, or the largest comparisons while no benchmark has records.

    Demonstrations come last.
    """
    named = [board for board in boards if board.benchmark]
    real = sorted((one for one in named if not one.conditions.demonstration), key=lambda one: one.benchmark)
    if not real:
        large = [one for one in boards if len(one.rows) > _FEWEST and not one.conditions.demonstration]
        real = sorted(large, key=lambda one: -len(one.rows))
    return real + [board for board in named if board.conditions.demonstration]


def make_answers(boards: Sequence[Board]) -> list[BoardAnswer]:
    """An answer for each of `first_boards`, under a title of its own."""
    first = first_boards(boards)
    shared = Counter(board.benchmark for board in first)
    titles = [_title(board, shared[board.benchmark] > 1) for board in first]
    return [
        BoardAnswer(board, title if titles.count(title) == 1 else f"{title}, {board.brief}")
        for board, title in zip(first, titles, strict=True)
    ]


def _title(board: Board, shared: bool) -> str:
    conditions = board.conditions
    name = readable(conditions.dataset, conditions.model)
    if not board.benchmark:
        return f"{name}, {board.budget}"
    words = f"{board.benchmark}: {board.budget}, {name}" if shared else board.benchmark
    remark = " (demonstration)" if conditions.demonstration and "demonstration" not in words else ""
    return plain(words + remark)


@dataclass(frozen=True)
class BoardAnswer:
    """The first things to know about a board, under a title."""

    board: Board
    title: str

    def attacked(self, row: Row, tier: Tier | None = None) -> Formatted:
        """The worst case of a row against an attacker, by default the one that ranks."""
        entry = self.board.entries.get((row.defense.key, WORST_CASE, tier or self.board.basis))
        return entry.numbers.get("attacked_accuracy", Formatted()) if entry else Formatted()

    def certified(self, row: Row) -> Formatted:
        """The certified accuracy of a row."""
        return self._cell(row, "proof", "")

    def time(self, row: Row) -> Formatted:
        """How many times as long it takes, in the largest batches that were timed."""
        return self._cell(row, "time", "batch")

    def _cell(self, row: Row, group: str, label: str) -> Formatted:
        cells = [
            cell
            for column, cell in zip(self.board.columns, row.cells, strict=True)
            if column.group == group and column.label.startswith(label)
        ]
        return cells[-1] if cells else Formatted()

    @property
    def proves(self) -> bool:
        """Whether any row has a certificate."""
        return any(column.group == "proof" for column in self.board.columns)

    @property
    def timed(self) -> bool:
        """Whether any row of the short table was timed."""
        return any(self.time(row).value is not None for row in self.best)

    @property
    def compared(self) -> int:
        """The rows that are compared with no defense."""
        return len(self.above) + len(self.fell)

    @property
    def undefended(self) -> Row | None:
        """The row without a defense."""
        return next((row for row in self.board.rows if row.baseline), None)

    @cached_property
    def above(self) -> list[Row]:
        """All rows above the line, barred ones among them."""
        return [row for row in self.board.rows if not row.section and not row.baseline]

    @cached_property
    def best(self) -> list[Row]:
        """The first rows of the board that are compared, without the one without a defense."""
        return [row for row in self.board.rows if row.section in ("", NO_BETTER) and not row.baseline][:_MOST]

    @property
    def short(self) -> list[Row]:
        """The short table: the best rows, and the one without a defense."""
        return [row for row in self.board.rows if row in self.best or row.baseline]

    @property
    def ranked(self) -> list[Row]:
        """All rows with a rank, in order."""
        return [row for row in self.board.rows if row.rank not in ("", DASH)]

    @property
    def first(self) -> list[Row]:
        """The rows that share the best rank."""
        return [row for row in self.ranked if row.rank.rstrip("=") == self.ranked[0].rank.rstrip("=")]

    @property
    def fell(self) -> list[Row]:
        """The rows below the line; first those that lost most to an attacker who knows them."""
        below = [row for row in self.board.rows if row.section == NO_BETTER and not row.baseline]
        return sorted(below, key=self._illusion, reverse=True)

    def _illusion(self, row: Row) -> float:
        """Points between the attacker who does not know the defense and the one who does."""
        numbers = (self.attacked(row, "oblivious").value, self.attacked(row, "adaptive").value)
        return numbers[0] - numbers[1] if None not in numbers else 0.0  # type: ignore[operator]  # neither is None

    @cached_property
    def sentences(self) -> list[str]:
        """What is best, by how much, at what cost, what fell, and what does not count."""
        if self.board.conditions.demonstration:
            return ["A demonstration on crops of ten photographs: it shows how the bench works, and ranks nothing."]
        return [one for one in (self._winner, self._cost, self._losers, self._barred, self._certainty) if one]

    @property
    def _knows(self) -> str:
        return "knows it" if self.board.basis == "adaptive" else "does not know it"

    @property
    def _winner(self) -> str:
        if not self.ranked:
            if not self.compared:
                return "So far no row is compared with the model without a defense."
            without = " without a red finding" if self.above else ""
            return f"No defense{without} is better than no defense beyond its interval."
        first, bare = self.first[0], self.undefended
        number, none = self.attacked(first), self.attacked(bare) if bare else Formatted()
        more = ""
        if number.value is not None and none.value is not None:
            more = f", {number.value - none.value:.1f} points more than without a defense ({none.text} %)"
        others = [row.defense.text for row in self.first[1:]]
        shared = f" The images do not tell it apart from {_listed(others)}." if others else ""
        return (
            f"Best: {first.defense.text} keeps {number.text} % ({number.interval}) of the images right against an "
            f"attacker who {self._knows}{more}.{shared}"
        )

    @property
    def _cost(self) -> str:
        bare = self.undefended
        if not self.ranked or bare is None:
            return ""
        first, words = self.first[0], []
        if first.clean.value is not None and bare.clean.value is not None:
            lost = bare.clean.value - first.clean.value
            words.append(f"{lost:.1f} points of clean accuracy" if lost > 0.05 else "no clean accuracy")
        time = self.time(first)
        if time.value is not None:
            words.append(f"{time.text.removesuffix('×')} times the time for an image")
        return f"Its cost: {_listed(words)}." if words else ""

    @property
    def _losers(self) -> str:
        if not self.fell:
            return ""
        worst = self.fell[0]
        example = ""
        if self._illusion(worst) >= 5:
            before, after = self.attacked(worst, "oblivious").text, self.attacked(worst, "adaptive").text
            example = f" {worst.defense.text} falls from {before} % to {after} % once the attacker knows it."
        count = f"{len(self.fell)} of {self.compared} defenses are not better than none." if self.ranked else ""
        return f"{count}{example}".strip()

    @property
    def _barred(self) -> str:
        barred = [row.defense.text for row in self.above if row.rank == DASH]
        return f"Not ranked because of red findings: {_listed(barred)}." if barred else ""

    @property
    def _certainty(self) -> str:
        numbers = [self.attacked(row) for row in self.board.rows]
        halves = [(one.high - one.low) / 2 for one in numbers if one.high is not None and one.low is not None]
        half = f", intervals of ± {median(halves):.1f} points" if halves else ""
        return f"{self.board.images} images{half}, effort {self.board.conditions.effort}."


def _listed(words: Sequence[str]) -> str:
    """Words with commas, and an "and" before the last."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
