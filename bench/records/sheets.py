"""The pictures of cells that were made for the site: a sheet of images, and what stands beside it as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bench.core.files import write_bytes, write_text
from bench.errors import InputError
from bench.records.schema import Cell, Outcome
from bench.records.store import Store


@checked(frozen=True)
class Sheet:
    """One picture with several images of a cell.

    Attributes:
        columns: what each column shows.
        rows: for each line of images what is to be told of it.
        width, height: of the whole sheet in pixels.
        fingerprints: as in the cell's record; with others it is not what the record tells of.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    width: int
    height: int
    fingerprints: dict[str, str]


def save_sheet(store: Store, cell: Cell, sheet: Sheet, picture: bytes) -> Path:
    """Writes a sheet (a WebP file) and what stands beside it; returns the picture's path."""
    path = sheet_path(store, cell)
    write_bytes(path, picture)
    write_text(path.with_suffix(".json"), TypeAdapter(Sheet).dump_json(sheet, indent=1).decode() + "\n")
    return path


def load_sheet(store: Store, outcomes: Sequence[Outcome]) -> tuple[Path, Sheet] | None:
    """The sheet of the first of these records that has one; raises InputError where its JSON is not as it should be."""
    for outcome in outcomes:
        path = sheet_path(store, outcome.cell)
        told = path.with_suffix(".json")
        if path.is_file() and told.is_file():
            try:
                sheet = TypeAdapter(Sheet).validate_json(told.read_bytes())
            except ValidationError as error:
                raise InputError(f"{told} tells of no picture. Delete it, or make the pictures again.") from error
            if sheet.fingerprints == outcome.fingerprints:
                return path, sheet
    return None


def sheet_path(store: Store, cell: Cell) -> Path:
    """Where the sheet of a cell lies."""
    return store.folder.joinpath("pictures", *cell.group, f"{cell.slug}.webp")
