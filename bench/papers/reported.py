"""The papers' tables as data: what was printed, and which cell of ours stands beside each value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, fields
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bench.errors import InputError

Texts = Annotated[tuple[str, ...], BeforeValidator(lambda one: (one,) if isinstance(one, str) else tuple(one))]
"""One text or several, the first of which is closest to the paper."""
_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, config=_STRICT)
class Query:
    """What stands beside a value; said by a table, a column or a row, of which the last one that speaks is heard.

    Attributes:
        settings: names in `settings.json`.
        attack, defense: texts such as `patch:area=0.05`; a record fits if it has these parameters, and `*` fits all.
        tier, goal: as in Cell; `*` fits all.
        measure: one of `bench.measured.MEASURES` or `TIMES`, or `TRAINING`.
        unit: of the value as it is printed.
        data, model, attacker: what the paper used, in words.
        unmeasured: why nothing here can stand beside the value, "" if something can.
    """

    settings: Texts = ()
    attack: Texts = ()
    defense: Texts = ()
    tier: Texts = ()
    goal: Texts = ()
    measure: str = ""
    unit: str = ""
    data: str = ""
    model: str = ""
    attacker: str = ""
    unmeasured: str = ""

    def then(self, other: Query) -> Query:
        """This query with whatever `other` says instead."""
        names = [one.name for one in fields(Query)]
        return Query(**{name: getattr(other, name) or getattr(self, name) for name in names})


@checked(frozen=True, config=_STRICT)
class Column(Query):
    """A column: its headings from the top, and what it asks for."""

    heads: tuple[str, ...] = ()


@checked(frozen=True, config=_STRICT)
class Row(Query):
    """A row: its label and its values as they are printed ("" where the paper has nothing), and what it asks for."""

    label: str = ""
    values: tuple[str, ...] = ()


@checked(frozen=True, config=_STRICT)
class Note:
    """A remark on a whole table, on rows, on columns, or on where they cross."""

    text: str
    rows: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()


@checked(frozen=True, config=_STRICT)
class Table(Query):
    """One table of a paper.

    Attributes:
        paper: its key in `papers.json`.
        table: its name in the paper.
        caption: what it shows, in our words.
        corner: heading of the rows' labels.
        notes: errors of the paper and what else belongs beside the values, numbered from 1.
        name: of its file, without an ending.
    """

    paper: str = ""
    table: str = ""
    caption: str = ""
    corner: str = ""
    columns: tuple[Column, ...] = ()
    rows: tuple[Row, ...] = ()
    notes: tuple[Note, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(f"{len(row.values)} values in the row {row.label!r} of {len(self.columns)} columns")
        labels = {row.label for row in self.rows}
        for note in self.notes:
            if set(note.rows) - labels or any(one >= len(self.columns) for one in note.columns):
                raise ValueError(f"the note {note.text[:40]!r} is on a row or a column that is not there")

    def query(self, row: int, column: int) -> Query:
        """What stands beside one value."""
        parts: tuple[Query, ...] = (self, self.columns[column], self.rows[row])
        return reduce(Query.then, parts, Query())

    def marks(self, row: int | None, column: int | None) -> list[int]:
        """Numbers of the notes on a value, on a row's label (no column) or on a column's heading (no row)."""

        def here(note: Note) -> bool:
            on_row = self.rows[row].label in note.rows if row is not None else not note.rows
            return on_row and (column in note.columns if column is not None else not note.columns)

        whole = row is None and column is None
        return [] if whole else [number for number, note in enumerate(self.notes, 1) if here(note)]


@checked(frozen=True, config=_STRICT)
class Place:
    """Data and a model that a value may be measured on.

    Attributes:
        dataset, model, images: for the command, as in Cell; 0 images are all.
        data, network: the same in words.
        datasets, models: patterns with `*` that the texts of a record's cell fit; by default exactly the texts.
    """

    dataset: str
    model: str
    data: str
    network: str
    images: int = 0
    datasets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


@checked(frozen=True, config=_STRICT)
class Paper:
    """Where the values come from."""

    title: str
    authors: str
    where: str


@checked(frozen=True, config=_STRICT)
class Reported:
    """All that a folder holds: papers and places by their names, tables in the order of their files."""

    papers: Mapping[str, Paper]
    places: Mapping[str, Place]
    tables: tuple[Table, ...] = field(default_factory=tuple)


def load(folder: Path) -> Reported:
    """Reads `papers.json`, `settings.json` and a file for each table.

    Raises:
        InputError: there is no such folder, or a file is not as it should be.
    """
    if not folder.is_dir():
        raise InputError(
            f"Expected the papers' tables in {folder}, but there is no such folder. They come with the repository: "
            "point to its results folder, or copy results/reported from it."
        )
    papers = _read(folder / "papers.json", TypeAdapter(dict[str, Paper]))
    places = _read(folder / "settings.json", TypeAdapter(dict[str, Place]))
    files = sorted(path for path in folder.glob("*.json") if path.name not in ("papers.json", "settings.json"))
    return Reported(papers, places, tuple(_table(path, papers, places) for path in files))


def _table(path: Path, papers: Mapping[str, Paper], places: Mapping[str, Place]) -> Table:
    table: Table = _read(path, TypeAdapter(Table), {"name": path.stem})
    asked = {name for part in (table, *table.columns, *table.rows) for name in part.settings}
    unknown = sorted((asked - set(places)) | ({table.paper} - set(papers)))
    if unknown:
        raise InputError(f"{path} names {', '.join(unknown)}, but papers.json and settings.json do not.")
    return table


def _read(path: Path, kind: TypeAdapter[Any], more: Mapping[str, str] | None = None) -> Any:
    try:
        return kind.validate_python(json.loads(path.read_text(encoding="utf-8")) | dict(more or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is not as it should be: {where}: {first['msg']}.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
