"""The source of plugins: where it lies, and a fingerprint of it that says whether a record is still of this code."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path


def source_of(module_name: str) -> Path | None:
    """The file of a module, found without importing it (its parent packages are imported)."""
    if module_name in sys.modules:
        origin = getattr(sys.modules[module_name], "__file__", None)
    else:
        try:
            spec = importlib.util.find_spec(module_name)
        except Exception:  # a third-party package may fail in any way, and must not break a listing
            return None
        origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None


def docstrings_of(module: str, name: str) -> list[str]:
    """The docstrings of a class and of its bases that stand beside it or in sibling files, its own first.

    Nothing is imported; without a source, or a class of that name, there are none.
    """
    source = source_of(module)
    tree = ast.parse(source.read_bytes()) if source else ast.Module([], [])
    found = next((one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name), None)
    if found is None:
        return []
    package = module.rpartition(".")[0]
    siblings = {
        alias.asname or alias.name: f"{package}.{node.module}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    bases = [one.id for one in found.bases if isinstance(one, ast.Name)]
    inherited = [text for base in bases for text in docstrings_of(siblings.get(base, module), base)]
    return [ast.get_docstring(found) or "", *inherited]


def code_fingerprint(plugin: object) -> str:
    """Changes when the code in the plugin's file does, or in a sibling file that it imports; short hex.

    What a docstring says changes no result, so it does not count.

    Args:
        plugin: an attack or a defense; of a chain, the files of all parts count.
    """
    return fingerprint_of([type(one).__module__ for one in (plugin, *getattr(plugin, "parts", ()))])


def fingerprint_of(module_names: Iterable[str]) -> str:
    """The fingerprint of plugins in these modules, which are not imported for it."""
    seen: dict[str, bytes] = {}
    todo = list(module_names)
    while todo:
        module_name = todo.pop()
        source = None if module_name in seen else source_of(module_name)
        if source is None:
            continue
        text = source.read_bytes()
        parsed = ast.parse(text)
        seen[module_name] = _without_docstrings(text, parsed)
        for node in ast.walk(parsed):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                package = module_name.rpartition(".")[0]
                names = [node.module] if node.module else [alias.name for alias in node.names]
                todo += [f"{package}.{name}" for name in names]
    return _digest(seen[name] for name in sorted(seen, key=lambda one: one.rpartition(".")[2]))


def fingerprint_of_text(text: bytes) -> str:
    """The fingerprint of a plugin whose file holds this text and imports no sibling; the text may be no Python."""
    try:
        return _digest([_without_docstrings(text, ast.parse(text))])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return _digest([text])


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:12]


def _without_docstrings(text: bytes, parsed: ast.Module) -> bytes:
    """The source with the lines left out that a docstring has for itself."""
    lines = text.splitlines(keepends=True)
    for node in ast.walk(parsed):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        said = node.body[0]
        first, last = said.lineno - 1, said.end_lineno or said.lineno
        beside = lines[first][: said.col_offset] + lines[last - 1][said.end_col_offset :]
        if not beside.strip():
            lines[first:last] = [b""] * (last - first)
    return b"".join(lines)
