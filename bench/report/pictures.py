"""The pictures of cells that were made for the site: a sheet of images, and what stands beside it as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bench.errors import InputError
from bench.outcome import Cell
from bench.store import Store, write, write_bytes


@checked(frozen=True)
class Sheet:
    """One picture with several images of a cell.

    Attributes:
        columns: what each column shows.
        rows: for each line of images what is to be told of it.
        width, height: of the whole sheet in pixels.
    """

    columns: tuple[str, ...]
    rows: tuple[str, ...]
    width: int
    height: int


def save(store: Store, cell: Cell, sheet: Sheet, picture: bytes) -> Path:
    """Writes a sheet (a WebP file) and what stands beside it; returns the picture's path."""
    path = sheet_path(store, cell)
    write_bytes(path, picture)
    write(path.with_suffix(".json"), TypeAdapter(Sheet).dump_json(sheet, indent=1).decode() + "\n")
    return path


def load(store: Store, cells: Sequence[Cell]) -> tuple[Path, Sheet] | None:
    """The sheet of the first of these cells that has one; raises InputError where its JSON is not as it should be."""
    for path in (sheet_path(store, cell) for cell in cells):
        told = path.with_suffix(".json")
        if path.is_file() and told.is_file():
            try:
                return path, TypeAdapter(Sheet).validate_json(told.read_bytes())
            except ValidationError as error:
                raise InputError(f"{told} tells of no picture. Delete it, or make the pictures again.") from error
    return None


def sheet_path(store: Store, cell: Cell) -> Path:
    """Where the sheet of a cell lies."""
    return store.folder.joinpath("pictures", *cell.group, f"{cell.slug}.webp")
