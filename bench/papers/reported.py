"""The papers' tables as data: what was printed, and which cell to compare each value with."""

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
"""One text or several, the one closest to the paper first."""
_STRICT = ConfigDict(extra="forbid")


@checked(frozen=True, config=_STRICT)
class Query:
    """What to compare a value with. A table, its columns and its rows may set each field; a row overrides its column.

    Attributes:
        settings: names in `settings.json`.
        attack, defense: texts such as `patch:area=0.05`; a record fits if it has these parameters, and `*` fits all.
        tier, goal: as in Cell; `*` fits all.
        measure: one of `READINGS`, `TIMINGS` or `TRAINING_INCREASE` in `bench.papers.measure`.
        control: the plain training that a training is compared with.
        unit: of the printed value.
        data, model, attacker: what the paper used, in words.
        unmeasured: why nothing here can be compared with the value, "" if something can.
    """

    settings: Texts = ()
    attack: Texts = ()
    defense: Texts = ()
    tier: Texts = ()
    goal: Texts = ()
    measure: str = ""
    control: str = ""
    unit: str = ""
    data: str = ""
    model: str = ""
    attacker: str = ""
    unmeasured: str = ""

    def then(self, other: Query) -> Query:
        """This query with the fields that `other` sets."""
        names = [one.name for one in fields(Query)]
        return Query(**{name: getattr(other, name) or getattr(self, name) for name in names})


@checked(frozen=True, config=_STRICT)
class ReportedColumn(Query):
    """A column: its headings, top to bottom, and its part of the query."""

    heads: tuple[str, ...] = ()


@checked(frozen=True, config=_STRICT)
class ReportedRow(Query):
    """A row: its label, its values as printed ("" where the paper has none), and its part of the query."""

    label: str = ""
    values: tuple[str, ...] = ()


@checked(frozen=True, config=_STRICT)
class Note:
    """A remark on a table, or on the values in some of its rows and columns."""

    text: str
    rows: tuple[str, ...] = ()
    columns: tuple[int, ...] = ()


@checked(frozen=True, config=_STRICT)
class ReportedTable(Query):
    """One table of a paper.

    Attributes:
        paper: its key in `papers.json`.
        table: its name in the paper.
        caption: what it shows, in our words.
        corner: the heading of the row labels.
        notes: errors in the paper and other remarks, numbered from 1.
        name: the name of its file without an ending.
    """

    paper: str = ""
    table: str = ""
    caption: str = ""
    corner: str = ""
    columns: tuple[ReportedColumn, ...] = ()
    rows: tuple[ReportedRow, ...] = ()
    notes: tuple[Note, ...] = ()
    name: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(
                    f"expected {len(self.columns)} values in the row {row.label!r}, one a column, but got "
                    f"{len(row.values)}"
                )
        labels = {row.label for row in self.rows}
        for note in self.notes:
            if set(note.rows) - labels or any(one >= len(self.columns) for one in note.columns):
                raise ValueError(f"the note {note.text[:40]!r} is on a row or a column that does not exist")

    def query(self, row: int, column: int) -> Query:
        """What to compare a value with."""
        parts: tuple[Query, ...] = (self, self.columns[column], self.rows[row])
        return reduce(Query.then, parts, Query())

    def marks(self, row: int | None, column: int | None) -> list[int]:
        """The numbers of the notes on a value, on a row label (no column) or on a column heading (no row)."""

        def here(note: Note) -> bool:
            on_row = self.rows[row].label in note.rows if row is not None else not note.rows
            return on_row and (column in note.columns if column is not None else not note.columns)

        return [number for number, note in enumerate(self.notes, 1) if here(note)]


@checked(frozen=True, config=_STRICT)
class ReportedSetting:
    """Data and a model that a value may be measured with.

    Attributes:
        dataset, model, images: for the command, as in Cell; 0 images are all.
        data, network: the same in words.
        datasets, models: patterns with `*` for the texts in a record's cell; by default exactly `dataset` and `model`.
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
    """A paper with reported values."""

    title: str
    authors: str
    where: str


@checked(frozen=True, config=_STRICT)
class Reported:
    """The content of a folder: papers and settings by name, tables in the order of their files."""

    papers: Mapping[str, Paper]
    settings: Mapping[str, ReportedSetting]
    tables: tuple[ReportedTable, ...] = field(default_factory=tuple)


def load_reported(folder: Path) -> Reported:
    """Reads `papers.json`, `settings.json` and one file for each table.

    Raises:
        InputError: the folder does not exist, or a file is invalid.
    """
    if not folder.is_dir():
        raise InputError(
            f"Expected the papers' tables in {folder}, but the folder does not exist. They come with the repository: "
            "point to its results folder, or copy results/reported from it."
        )
    papers = _read(folder / "papers.json", TypeAdapter(dict[str, Paper]))
    settings = _read(folder / "settings.json", TypeAdapter(dict[str, ReportedSetting]))
    files = sorted(path for path in folder.glob("*.json") if path.name not in ("papers.json", "settings.json"))
    tables = tuple(_read(path, TypeAdapter(ReportedTable), {"name": path.stem}) for path in files)
    for path, table in zip(files, tables, strict=True):
        asked = {name for part in (table, *table.columns, *table.rows) for name in part.settings}
        unknown = sorted((asked - set(settings)) | ({table.paper} - set(papers)))
        if unknown:
            raise InputError(f"{path} names {', '.join(unknown)}, which papers.json and settings.json do not define.")
    return Reported(papers, settings, tables)


def _read(path: Path, kind: TypeAdapter[Any], more: Mapping[str, str] | None = None) -> Any:
    try:
        return kind.validate_python(json.loads(path.read_text(encoding="utf-8")) | dict(more or {}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is not valid: {where}: {first['msg']}.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
