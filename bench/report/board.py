"""What every kind of table shows: boards, with the numbers already formatted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bench.core.text import plain
from bench.records.schema import Cell, PluginRecord, Tier
from bench.report.flags import Flag
from bench.report.format import Shown, arxiv
from bench.report.grouping import Conditions, Sample

WORST = ""
"""Stands where an attack's text would, for the worst case over all of them."""
Key = tuple[str, str, Tier]
"""(defense, attack or WORST, tier)."""


@dataclass(frozen=True)
class PluginLink:
    """An attack or a defense: `key` as records have it, and the names that a reader sees."""

    key: str
    text: str
    title: str = ""
    paper: str = ""
    link: str | None = None
    kind: str = ""
    note: str = ""

    @classmethod
    def of(cls, text: str, record: PluginRecord | None) -> PluginLink:
        """What its record says; the text alone where there is no record."""
        if record is None:
            return cls(text, plain(text))
        kind, note = plain(str(record.traits.get("kind", ""))), plain(record.note)
        return cls(text, plain(text), plain(record.title), plain(record.paper), arxiv(record.paper), kind, note)


@dataclass(frozen=True)
class Entry:
    """One cell, or the worst case over some.

    Attributes:
        numbers: measure -> formatted number, for all measures that there are.
        seeds: which seeds went into them.
        queries: what the attack asked of the model, in words.
        sample: the records; None for a worst case.
    """

    numbers: Mapping[str, Shown]
    seeds: tuple[int, ...] = ()
    queries: str = ""
    sample: Sample | None = None


@dataclass(frozen=True)
class Column:
    """A column with numbers. `group` stands above it; `tint` sets the attackers and proofs apart.

    Attributes:
        label, group, hint: its heading, what stands above that, and what it means.
        tint: a tier, `certified`, or "".
        attack: the one attack that its numbers are about, None where it is several or none.
        head: whether its numbers are the first that one looks at.
    """

    label: str
    group: str
    hint: str
    tint: str = ""
    attack: str | None = None
    head: bool = False


@dataclass(frozen=True)
class Row:
    """One defense.

    Attributes:
        defense: its names.
        rank: "" for the row without a defense, "–" where there is none.
        why_unranked: "" where there is a rank.
        baseline: whether this is the row without a defense.
        clean: accuracy when nobody attacks.
        cells: one for each column of the board.
        flags: what the checks found.
    """

    defense: PluginLink
    rank: str
    why_unranked: str
    baseline: bool
    clean: Shown
    cells: tuple[Shown, ...]
    flags: tuple[Flag, ...]

    @property
    def badges(self) -> list[Flag]:
        """The checks that fired."""
        return [flag for flag in self.flags if flag.colour != "grey"]

    @property
    def unchecked(self) -> list[Flag]:
        """The checks that could not run."""
        return [flag for flag in self.flags if flag.colour == "grey"]


@dataclass(frozen=True)
class Board:
    """One comparison: everything in it has the same data, model, budget, goal and effort.

    Attributes:
        setting: what that is.
        images, classes: how many.
        seeds: which there are.
        basis: the tier that the rows are ranked by.
        attacks: the attacks of each tier.
        columns, rows: the wide table.
        entries: the long table.
        footnotes: numbered from 1.
        remarks: what belongs beside all numbers.
    """

    setting: Conditions
    images: str
    classes: int
    seeds: tuple[int, ...]
    basis: Tier
    attacks: Mapping[Tier, tuple[PluginLink, ...]]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    entries: Mapping[Key, Entry]
    footnotes: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def cells(self) -> list[Cell]:
        """All of them, each of its seeds by itself."""
        return [one.cell for entry in self.entries.values() if entry.sample for one in entry.sample.outcomes]

    @property
    def raised(self) -> list[tuple[Flag, str]]:
        """The checks that fired, red ones first, each with the rows that share its finding."""
        found: dict[Flag, list[str]] = {}
        for row in self.rows:
            for flag in row.badges:
                found.setdefault(flag, []).append(row.defense.text)
        order = sorted(found, key=lambda flag: (flag.colour != "red", flag.id, found[flag]))
        return [(flag, ", ".join(found[flag])) for flag in order]

    @property
    def budget(self) -> str:
        """What the attacker may change, in words."""
        return plain(self.setting.budget or self.setting.threat_model or "no stated budget")

    @property
    def conditions(self) -> str:
        """What else the numbers hold for, in words."""
        chance = f"{self.classes} classes (chance {100 / self.classes:.3g} %)" if self.classes else ""
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"
        words = [f"{self.images} images", chance, plain(self.setting.goal), f"effort {self.setting.effort}", seeds]
        return " · ".join(word for word in words if word)

    @property
    def brief(self) -> str:
        """What tells it from other boards of its data, model and budget."""
        goal = plain(self.setting.goal) if self.setting.goal != "untargeted" else ""
        return " · ".join(word for word in (goal, self.setting.effort, f"{self.images} images") if word)
