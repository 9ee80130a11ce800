"""JSON files with a checksum of what they say, so that a change by hand or by a failing disk is seen."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from bench.core.files import write_text
from bench.errors import InputError

RESTORE = "Restore it from your history, or delete it and compute it again"
"""What to do with a damaged file."""


def seal(tree: dict[str, Any]) -> dict[str, Any]:
    """A tree as it comes out of a JSON file, with its checksum."""
    return {**tree, "checksum": _checksum(tree)}


def write_sealed(path: Path, tree: dict[str, Any]) -> None:
    """Writes a tree of text, finite numbers, lists and dicts as a JSON file with a checksum."""
    write_text(path, json.dumps(seal(tree), indent=1, ensure_ascii=False) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """The tree in a file, without its checksum; raises InputError, with the file's name, unless they match."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return parse_sealed(content, str(path))


def parse_sealed(content: bytes, name: str) -> dict[str, Any]:
    """The tree in the content of a file of this name, as `read_sealed`."""
    try:
        tree = json.loads(content, object_pairs_hook=_unique, parse_constant=_refuse)
        if not isinstance(tree, dict):
            raise ValueError(f"expected an object, but got {type(tree).__name__}")
        found, expected = tree.pop("checksum", None), _checksum(tree)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name} is not a record: {error}. {RESTORE}.") from error
    if found != expected and (found is not None or tree.get("schema") != 1):  # schema 1 had no checksums
        raise InputError(f"{name} was changed after it was written: its checksum does not match. {RESTORE}.")
    return tree


def _checksum(tree: dict[str, Any]) -> str:
    """Of the content, whatever its spaces and line ends."""
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError("a key comes twice")
    return tree


def _refuse(constant: str) -> None:
    raise ValueError(f"expected finite numbers, but got {constant}")
