"""A board: the table that compares defenses under the same conditions, with its numbers formatted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bench.core.text import plain
from bench.records.format import Formatted
from bench.records.samples import Conditions, Sample
from bench.records.schema import Outcome, PluginRecord, Tier
from bench.report.flags import Flag

WORST_CASE = ""
"""Takes the place of the attack's text for the worst case over all attacks."""
EntryKey = tuple[str, str, Tier]
"""(defense, attack or WORST_CASE, tier)."""
_ARXIV = re.compile(r"(?<![\d.])\d{4}\.\d{4,5}(?![\d.])")


@dataclass(frozen=True)
class PluginLink:
    """An attack or a defense: its `key` in records, and what readers see of it."""

    key: str
    text: str
    title: str = ""
    paper: str = ""
    kind: str = ""
    note: str = ""

    @classmethod
    def of(cls, text: str, record: PluginRecord | None) -> PluginLink:
        """The link for a plugin's text, with the details of its record if there is one."""
        if record is None:
            return cls(text, plain(text))
        words = (record.title, record.paper, str(record.traits.get("kind", "")), record.note)
        return cls(text, plain(text), *map(plain, words))

    @property
    def arxiv(self) -> str:
        """The address of the paper if its arXiv id is known, else ""."""
        identifier = _ARXIV.search(self.paper)
        return f"https://arxiv.org/abs/{identifier[0]}" if identifier else ""


@dataclass(frozen=True)
class Entry:
    """A cell, or the worst case over several.

    Attributes:
        numbers: the formatted value of each measure that is known.
        queries: what the attack asked of the model, in words.
        sample: the records, None for a worst case.
    """

    numbers: Mapping[str, Formatted]
    queries: str = ""
    sample: Sample | None = None


@dataclass(frozen=True)
class Column:
    """A column of numbers.

    Attributes:
        label: its heading.
        group: the heading above it, which neighbouring columns share.
        hint: what its numbers mean.
        tint: a tier, `certified`, or "": sets attackers and proofs apart.
        attack: the attack that it is about, None for several or none.
        primary: whether its numbers are the ones to look at first.
    """

    label: str
    group: str
    hint: str
    tint: str = ""
    attack: str | None = None
    primary: bool = False


@dataclass(frozen=True)
class Row:
    """A defense.

    Attributes:
        defense: its name and description.
        rank: "" for the row without a defense, "–" for a row that is not ranked.
        section: the part of the board that it belongs to, one of `evidence.PARTS`.
        why_unranked: the reason why it has no rank, "" if it has one.
        baseline: whether this is the row without a defense.
        clean: accuracy on clean images.
        cells: one number for each column of the board.
        flags: what the checks found.
    """

    defense: PluginLink
    rank: str
    section: str
    why_unranked: str
    baseline: bool
    clean: Formatted
    cells: tuple[Formatted, ...]
    flags: tuple[Flag, ...]

    @property
    def raised(self) -> list[Flag]:
        """The flags of checks that fired."""
        return [flag for flag in self.flags if flag.colour != "grey"]

    @property
    def not_run(self) -> list[Flag]:
        """The flags of checks that could not run."""
        return [flag for flag in self.flags if flag.colour == "grey"]


@dataclass(frozen=True)
class Board:
    """One comparison of defenses.

    Attributes:
        conditions: what all its numbers share.
        benchmark: the title of the benchmark that it belongs to, "" if to none.
        images, classes: how many.
        seeds: the seeds of its records.
        basis: the tier that ranks the rows.
        attacks: the attacks of each tier.
        columns, rows: the table with a row for each defense.
        entries: the table with a row for each cell.
        footnotes: numbered from 1.
        remarks: what a reader of any of its numbers must know.
    """

    conditions: Conditions
    images: str
    classes: int
    seeds: tuple[int, ...]
    basis: Tier
    attacks: Mapping[Tier, tuple[PluginLink, ...]]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    entries: Mapping[EntryKey, Entry]
    footnotes: tuple[str, ...]
    remarks: tuple[str, ...]
    benchmark: str = ""

    @cached_property
    def common(self) -> tuple[str, ...]:
        """The ids of the amber flags that nearly all rows carry, and that are said once for all."""
        defended = [row for row in self.rows if not row.baseline]
        counts = Counter(id for row in defended for id in {flag.id for flag in row.raised if flag.colour == "amber"})
        return tuple(sorted(id for id, count in counts.items() if len(defended) > 2 and count >= 0.75 * len(defended)))

    def own(self, row: Row) -> list[Flag]:
        """The flags of a row, but for those that nearly all rows carry."""
        return [flag for flag in row.raised if flag.colour == "red" or flag.id not in self.common]

    @property
    def outcomes(self) -> list[Outcome]:
        """The records of all cells, one for each seed."""
        return [one for entry in self.entries.values() if entry.sample for one in entry.sample.outcomes]

    @property
    def name(self) -> str:
        """Its title among the boards with the same data set and model."""
        return f"{plain(self.benchmark)}: {self.budget}" if self.benchmark else self.budget

    @property
    def budget(self) -> str:
        """What the attacker may change, in words."""
        return plain(self.conditions.budget or self.conditions.threat_model or "no stated budget")

    @property
    def page(self) -> str:
        """The page of the site that shows it."""
        return "index.html" if self.benchmark else "experiments.html"

    @property
    def description(self) -> str:
        """The conditions beside data set, model and budget, in words."""
        chance = f"{self.classes} classes (chance {100 / self.classes:.3g} %)" if self.classes else ""
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"
        words = [
            f"{self.images} images", chance, plain(self.conditions.goal), f"effort {self.conditions.effort}", seeds
        ]  # fmt: skip
        return " · ".join(word for word in words if word)

    @property
    def brief(self) -> str:
        """What sets it apart from boards with the same data set, model and budget."""
        goal = plain(self.conditions.goal) if self.conditions.goal != "untargeted" else ""
        return " · ".join(word for word in (goal, self.conditions.effort, f"{self.images} images") if word)
