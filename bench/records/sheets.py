"""Sheets: pictures of the images of a cell for the site, with their captions as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import PositiveInt, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bench.core.files import write_bytes
from bench.errors import InputError
from bench.records.schema import Cell, Outcome, first_problem
from bench.records.sealed import read_sealed, write_sealed
from bench.records.store import Store


@checked(frozen=True)
class Sheet:
    """The captions of one picture with several images of a cell.

    Attributes:
        columns: what each column shows.
        rows: the caption of each line of images.
        width, height: of the whole picture in pixels.
        fingerprints: as in the cell's record; if they differ, the picture is of other images.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    width: PositiveInt
    height: PositiveInt
    fingerprints: dict[str, str]


_SHEET = TypeAdapter(Sheet)


def save_sheet(store: Store, cell: Cell, sheet: Sheet, picture: bytes) -> Path:
    """Writes a picture (a WebP file) and its captions; returns the picture's path."""
    path = sheet_path(store, cell)
    write_bytes(path, picture)
    write_sealed(path.with_suffix(".json"), _SHEET.dump_python(sheet, mode="json"))
    return path


def load_sheet(store: Store, outcomes: Sequence[Outcome]) -> tuple[Path, Sheet] | None:
    """The sheet of the first of these records that has one; raises InputError if its JSON is damaged."""
    for outcome in outcomes:
        path = sheet_path(store, outcome.cell)
        captions = path.with_suffix(".json")
        if path.is_file() and captions.is_file():
            try:
                sheet = _SHEET.validate_python(read_sealed(captions))
            except ValidationError as error:
                raise InputError(f"{captions} is not a sheet: {first_problem(error)}. Delete it.") from error
            if sheet.fingerprints == outcome.fingerprints:
                return path, sheet
    return None


def sheet_path(store: Store, cell: Cell) -> Path:
    """The file of the picture of a cell."""
    return store.folder.joinpath("pictures", *cell.group, f"{cell.slug}.webp")
