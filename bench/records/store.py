"""Records on disk: one JSON file for each cell, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from bench.core.files import write_text
from bench.core.identity import without_hashes
from bench.errors import InputError
from bench.plugins.specs import check_known
from bench.records.schema import SCHEMA, Cell, Latency, Outcome, first_problem, spell, split_words
from bench.records.sealed import RESTORE, parse_sealed, read_sealed, seal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_OUTCOME = TypeAdapter(Outcome)
_LATENCY = TypeAdapter(Latency)
_LATENCY_PREFIX = "latency-"
_HOUR = 3600


class Store:
    """The records below a results folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records"
        self.claims = folder / ".claims"
        self._prepared = False

    def prepare(self) -> None:
        """Makes the folder; raises InputError if it cannot be written."""
        try:
            self.records.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.records):
                pass
            for part in self.folder.rglob(".*.part"):  # of a process that was killed while it wrote
                if time.time() - part.stat().st_mtime > _HOUR:
                    part.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(
                f"The results folder {self.folder} cannot be written: {error.strerror or error}."
            ) from error
        self._prepared = True

    def path(self, record: Cell | Latency) -> Path:
        """The file of a record."""
        return self.records.joinpath(*record.group, record.slug + ".json")

    def load(self, cell: Cell) -> Outcome | None:
        """The record of a cell, or None; raises InputError if the file is not its record."""
        path = self.path(cell)
        return self._read_outcome(path) if path.is_file() else None

    def version(self, record: Cell | Latency) -> str:
        """A hash of the file of a record as it is now; "" if there is none."""
        try:
            return hashlib.sha256(self.path(record).read_bytes()).hexdigest()
        except OSError:
            return ""

    def save(self, record: Outcome | Latency) -> Path:
        """Writes a record; readers see the old one or the new one, never half of it.

        Raises InputError if it cannot be written; it is then kept in the cache folder, and the error says where.
        """
        path = self.path(record.cell if isinstance(record, Outcome) else record)
        text = _text(record)
        try:
            if self._prepared and not self.records.is_dir():
                raise FileNotFoundError(None, "the folder is gone")
            write_text(path, text)
        except OSError as error:
            _keep(path.relative_to(self.folder), text, self.folder, error.strerror or str(error))
        return path

    def drop(self, record: Cell | Latency) -> None:
        """Deletes a record, if there is one, and the pictures and curves of its cell."""
        self.path(record).unlink(missing_ok=True)
        for kind, ending in (("patches", "png"), ("pictures", "webp"), ("pictures", "json"), ("roc", "json")):
            self.folder.joinpath(kind, *record.group, f"{record.slug}.{ending}").unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other processes that use this from working on the folder at the same time, where the system can."""
        if fcntl is None:
            yield
            return
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def picture(self, cell: Cell) -> Path:
        """The file with the picture of what a universal attack learned for this cell."""
        return self.folder.joinpath("patches", *cell.group, cell.slug + ".png")

    def select(self, text: str) -> list[Outcome]:
        """The records whose cells have these `key=value` words; hashes of files may be left out.

        Raises InputError for an unknown key.
        """
        wanted = split_words(text)
        keys = [item.name for item in fields(Cell)]
        for key in wanted:
            check_known(key, keys, "key of a cell")

        def fits(cell: Cell) -> bool:
            texts = {key: str(getattr(cell, key)) for key in wanted}
            return all(value in (texts[key], without_hashes(texts[key])) for key, value in wanted.items())

        return [outcome for outcome in self.outcomes() if fits(outcome.cell)]

    def find(self, text: str) -> Outcome:
        """The only record whose cell has these `key=value` words; raises InputError if there is none or several."""
        matches = self.select(text)
        if len(matches) == 1:
            return matches[0]
        first = "".join(f"\n  {outcome.cell}" for outcome in matches[:5])
        advice = (
            f" Add words of one of these cells:{first}"
            if matches
            else " 'bench run' computes cells; results/README.md lists those that are computed."
        )
        raise InputError(f"Expected one record in {self.records} with {text!r}, but there are {len(matches)}.{advice}")

    def outcomes(self) -> Iterator[Outcome]:
        """All records of cells, in the order of their paths; raises InputError if a file is not such a record."""
        for path in self._files():
            if not path.name.startswith(_LATENCY_PREFIX):
                yield self._read_outcome(path)

    def latencies(self) -> Iterator[Latency]:
        """All records of latency, as `outcomes`."""
        for path in self._files():
            if path.name.startswith(_LATENCY_PREFIX):
                latency: Latency = _read(path, _LATENCY)
                self._check_place(path, latency, f"the latency of {latency.defense}")
                yield latency

    def _files(self) -> list[Path]:
        return sorted(self.records.rglob("*.json"))

    def _read_outcome(self, path: Path) -> Outcome:
        outcome: Outcome = _read(path, _OUTCOME)
        self._check_place(path, outcome.cell, str(outcome.cell))
        return outcome

    def _check_place(self, path: Path, record: Cell | Latency, what: str) -> None:
        expected = self.path(record)
        if path != expected:
            raise InputError(
                f"{path} holds the record of another file: {what}. Delete it, or move it there: {expected}."
            )


def parse_outcome(content: bytes, name: str) -> Outcome:
    """The record of a cell in the content of a file of this name; or InputError with that name."""
    outcome: Outcome = _validated(parse_sealed(content, name), name, _OUTCOME)
    return outcome


def _keep(place: Path, text: str, folder: Path, problem: str) -> NoReturn:
    """Saves a record that the results folder does not take in the cache folder, and says so."""
    from bench.core.tensor_cache import cache_folder

    shelter = cache_folder() / "unsaved"
    try:
        write_text(shelter / place, text)
        advice = (
            f"It is kept in {shelter}; to add it later: cp -r {shlex.quote(str(shelter))}/. {shlex.quote(str(folder))}"
        )
    except OSError as error:
        advice = f"It cannot be kept in {shelter} either ({error.strerror or error}). This is the record:\n{text}"
    raise InputError(f"The record {folder / place} cannot be written: {problem}. {advice}")


def _text(record: Outcome | Latency) -> str:
    """JSON with a line for each fact and a character for each yes or no, so that people can read it."""
    tree = asdict(record) | {"schema": SCHEMA}
    if facts := tree.get("facts"):
        noted = {name: spell(values) for name, values in facts["noted"].items()}
        facts |= {name: spell(facts[name]) for name in facts.keys() - {"index", "label", "noted"}} | {"noted": noted}
    lists: list[str] = []
    mark = secrets.token_hex(8)

    def marked(tree: Any) -> Any:
        """Swaps lists of numbers for marks, to be put back on one line each."""
        if isinstance(tree, dict):
            return {key: marked(value) for key, value in tree.items()}
        if _is_numbers(tree):
            lists.append(json.dumps(tree, separators=(",", ":")))
            return f"{mark} {len(lists) - 1}"
        return tree

    sealed = seal(json.loads(json.dumps(_shortened(tree), allow_nan=False)))
    text = json.dumps(marked(sealed), indent=1, ensure_ascii=False)
    return re.sub(rf'"{mark} (\d+)"', lambda match: lists[int(match[1])], text) + "\n"


def _is_numbers(tree: Any) -> bool:
    return isinstance(tree, list | tuple) and not any(isinstance(item, str | dict | list | tuple) for item in tree)


def _shortened(tree: Any) -> Any:
    """With 1 for 1.0 and at most six digits in lists: shares and small measures need no more."""
    if isinstance(tree, dict):
        return {key: _shortened(value) for key, value in tree.items()}
    if not _is_numbers(tree):
        return tree
    return [
        item if not isinstance(item, float) else int(item) if item.is_integer() else round(item, 6) for item in tree
    ]


def _read(path: Path, kind: TypeAdapter[Any]) -> Any:
    return _validated(read_sealed(path), str(path), kind)


def _validated(tree: dict[str, Any], name: str, kind: TypeAdapter[Any]) -> Any:
    schema = tree.pop("schema", None)
    if schema not in (1, SCHEMA):
        raise InputError(
            f"{name} has schema {schema!r}; this version reads schemas 1 and {SCHEMA}. Compute the cell again, or use "
            f"the version that wrote it."
        )
    try:
        return kind.validate_python(tree)
    except ValidationError as error:
        raise InputError(f"{name} is not a record: {first_problem(error)}. {RESTORE}.") from error
