"""Records on disk: one JSON file for each cell, written whole or not at all."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.core.files import write_text
from bench.errors import InputError
from bench.plugins.specs import check_known
from bench.records.schema import SCHEMA, Cell, Latency, Outcome, spell

_OUTCOME = TypeAdapter(Outcome)
_LATENCY = TypeAdapter(Latency)


class Store:
    """The records below a results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records"

    def prepare(self) -> None:
        """Makes the folder; raises InputError where it cannot be written."""
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.records):
                pass
        except OSError as error:
            raise InputError(
                f"The results folder {self.folder} cannot be written: {error.strerror or error}."
            ) from error

    def path(self, record: Cell | Latency) -> Path:
        """Where a record lies."""
        return self.records.joinpath(*record.group, record.slug + ".json")

    def load(self, cell: Cell) -> Outcome | None:
        """The record of a cell, or None; raises InputError where the file is no record."""
        path = self.path(cell)
        return _read(path, _OUTCOME) if path.is_file() else None

    def save(self, record: Outcome | Latency) -> Path:
        """Writes a record; a reader sees the old one or the new one, never a half."""
        path = self.path(record.cell if isinstance(record, Outcome) else record)
        write_text(path, _text(record))
        return path

    def picture(self, cell: Cell) -> Path:
        """Where the picture of what a universal attack learned for this cell lies."""
        return self.folder.joinpath("patches", *cell.group, cell.slug + ".png")

    def select(self, text: str) -> list[Outcome]:
        """The records whose cells have these `key=value` words; raises InputError for an unknown key."""
        wanted = dict(word.partition("=")[::2] for word in shlex.split(text))
        keys = [one.name for one in fields(Cell)]
        for key in wanted:
            check_known(key, keys, "key of a cell")
        return [
            one for one in self.outcomes() if all(str(getattr(one.cell, key)) == value for key, value in wanted.items())
        ]

    def find(self, text: str) -> Outcome:
        """The one record whose cell has these `key=value` words; raises InputError where there is none or several."""
        found = self.select(text)
        if len(found) == 1:
            return found[0]
        some = "".join(f"\n  {one.cell}" for one in found[:5])
        more = (
            " Say more of:" + some if found else " 'bench run' computes cells; results/README.md names those there are."
        )
        raise InputError(f"Expected one record in {self.records} with {text!r}, but there are {len(found)}.{more}")

    def outcomes(self) -> Iterator[Outcome]:
        """All records of cells, in the order of their paths."""
        for path in sorted(self.records.glob("*/*/*.json")):
            if not path.name.startswith("latency-"):
                yield _read(path, _OUTCOME)

    def latencies(self) -> Iterator[Latency]:
        """All records of latency, in the order of their paths."""
        for path in sorted(self.records.glob("*/*/latency-*.json")):
            yield _read(path, _LATENCY)


def _text(record: Outcome | Latency) -> str:
    """JSON with a line for each fact and a character for each yes or no, so that people can read it."""
    lists: list[str] = []

    def mark(tree: Any) -> Any:
        """Swaps lists of numbers for marks, to be put back on one line each."""
        if isinstance(tree, dict):
            return {key: mark(value) for key, value in tree.items()}
        if isinstance(tree, list) and not any(isinstance(item, str | dict | list) for item in tree):
            lists.append(json.dumps([_short(item) for item in tree], separators=(",", ":")))
            return f"@list {len(lists) - 1}@"
        return tree

    tree = asdict(record)
    if facts := tree.get("facts"):
        noted = {name: spell(values) for name, values in facts["noted"].items()}
        facts |= {name: spell(facts[name]) for name in facts.keys() - {"index", "label", "noted"}} | {"noted": noted}
    text = json.dumps(mark(tree), indent=1, ensure_ascii=False)
    return re.sub(r'"@list (\d+)@"', lambda found: lists[int(found[1])], text) + "\n"


def _short(value: Any) -> Any:
    """1.0 -> 1, and six digits at the most: shares and small measures need no more."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else round(value, 6)
    return value


def _read(path: Path, kind: TypeAdapter[Any]) -> Any:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a record: {error}. Delete it, or restore it from your history.") from error
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if schema != SCHEMA:
        raise InputError(
            f"{path} has schema {schema}; this version reads schema {SCHEMA}. Compute the cell again, or use "
            f"the version that wrote it."
        )
    try:
        return kind.validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path} is not a record: {where}: {first['msg']}.") from error
