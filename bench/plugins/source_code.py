"""The source of modules, found without importing them: docstrings, and fingerprints of what the code computes.

A fingerprint covers a module and every module of ours, of the plugin's author or of this machine's user that it
imports, directly or not. Comments, docstrings and formatting do not count; installed libraries do not either, since
records name their versions. Of this package the root, `core`, the attacks and the defenses count: the other wings do
the same for every cell, and stand under the engine's protocol number.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path

from bench.core.files import content_hash, file_version

_OURS = "bench"
_PLUGIN_CODE = ("attacks", "defenses", "core")
_LIBRARIES = {"site-packages", "dist-packages"}
_FILE_NAME = re.compile(r"[\w-][\w. -]{0,99}(/[\w-][\w. -]{0,99}){0,5}")
_IMPORT_FUNCTIONS = ("import_module", "__import__")


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


def docstrings_of(module_name: str, class_name: str) -> list[str]:
    """The docstrings of a class and of its bases that stand beside it or in sibling files, its own first.

    Nothing is imported; without a source, or without a class of that name, the list is empty.
    """
    source = source_of(module_name)
    tree = ast.parse(source.read_bytes()) if source else ast.Module([], [])
    node = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name), None)
    if node is None:
        return []
    package = module_name.rpartition(".")[0]
    siblings = {
        alias.asname or alias.name: f"{package}.{node.module}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }
    bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
    inherited = [text for base in bases for text in docstrings_of(siblings.get(base, module_name), base)]
    return [ast.get_docstring(node) or "", *inherited]


def fingerprint_of(module_names: Iterable[str]) -> str:
    """The fingerprint of the code in these modules and in what they import; 12 hex digits."""
    return _fingerprint(_digests(module_names, {}))


def modules_of(module_names: Iterable[str]) -> list[str]:
    """The modules that a fingerprint of these covers; a package stands before what is in it."""
    return sorted(_digests(module_names, {}))


def fingerprint_of_text(text: bytes, beside: Mapping[str, bytes]) -> str:
    """The fingerprint of a module with this text that has not been imported; the text may be no Python.

    Args:
        text: the module, which imports nothing but libraries and this package.
        beside: name -> content of the files in its folder.
    """
    code = _read_code(text, "module")
    contents = {name: hashlib.sha256(beside[name]).hexdigest() for name in code.names if name in beside}
    ours = (name for name in code.imports if name.partition(".")[0] == _OURS)
    return _fingerprint(_digests(filter(_counts_of_ours, ours), {"module": {code.digest, *contents.values()}}))


@dataclass(frozen=True)
class _Code:
    """What a module says.

    Attributes:
        digest: of its syntax tree without docstrings.
        imports: the modules that it imports, or that its imports might name.
        names: texts in it that may be names of files or folders beside it.
    """

    digest: str
    imports: tuple[str, ...]
    names: tuple[str, ...]


def _fingerprint(digests: Mapping[str, set[str]]) -> str:
    every = sorted({digest for of_module in digests.values() for digest in of_module})
    return hashlib.sha256(" ".join(every).encode()).hexdigest()[:12]


def _digests(module_names: Iterable[str], digests: dict[str, set[str]]) -> dict[str, set[str]]:
    """The digests of these modules and of all that they import, added to those of modules that were read before."""
    todo = list(module_names)
    while todo:
        name = todo.pop()
        source = None if name in digests else source_of(name)
        if source is None:
            continue
        code = _code_in(source, name, file_version(source))
        digests[name] = {code.digest, *map(content_hash, _files_beside(source.parent, code.names))}
        todo += [imported for imported in code.imports if imported not in digests and belongs_to(imported, name)]
    return digests


def _files_beside(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    """The files with these names in a folder, and in those of its subfolders that have one of the names."""
    entries = _entries(folder, file_version(folder))
    near = [folder / name for name in names if name.partition("/")[0] in entries]
    below = (path / name for path in near if path.is_dir() for name in names)
    return (path for path in (*near, *below) if path.is_file())


@lru_cache(maxsize=4096)
def _entries(folder: Path, version: tuple[int, int]) -> frozenset[str]:
    return frozenset(path.name for path in folder.iterdir())


def belongs_to(module_name: str, importer: str) -> bool:
    """Whether the code of an imported module belongs to the fingerprint of the module that imports it."""
    top, own = module_name.partition(".")[0], importer.partition(".")[0]
    if top == _OURS:
        return _counts_of_ours(module_name)
    return top not in sys.stdlib_module_names and (top == own or not _installed(top) or top in _distributed_with(own))


def _counts_of_ours(module_name: str) -> bool:
    parts = module_name.split(".")[1:]
    if len(parts) == 2:
        return parts[0] in _PLUGIN_CODE
    source = source_of(module_name) if len(parts) == 1 else None
    return source is not None and source.name != "__init__.py"


@cache
def _installed(top: str) -> bool:
    """Whether a top-level module is an installed library, or cannot be found."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return True
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec else []
    return not any(place and not _LIBRARIES.intersection(Path(place).parts) for place in places)


@cache
def _distributed_with(top: str) -> frozenset[str]:
    """The top-level modules that were installed together with this one."""
    if not _installed(top):
        return frozenset()
    distributions = packages_distributions()
    own = set(distributions.get(top, ()))
    return frozenset(name for name, others in distributions.items() if own & set(others))


@lru_cache(maxsize=4096)
def _code_in(source: Path, module_name: str, version: tuple[int, int]) -> _Code:
    """Read once for each version of the file."""
    package = module_name if source.name == "__init__.py" else module_name.rpartition(".")[0]
    return _read_code(source.read_bytes(), package)


def _read_code(text: bytes, package: str) -> _Code:
    try:
        tree = ast.parse(text)
        nodes = list(ast.walk(tree))
        imports = dict.fromkeys(name for node in nodes for name in _imported(node, package))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        content = ascii(_shape(tree)).encode()
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # no Python, or hostile
        return _Code(hashlib.sha256(text).hexdigest(), (), ())
    names = tuple(sorted(filter(_FILE_NAME.fullmatch, texts)))
    return _Code(hashlib.sha256(content).hexdigest(), tuple(imports), names)


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """The modules that an import names or may name, and their packages, whose code is run first."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(node, package)
        names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in _IMPORT_FUNCTIONS:
        names = [str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    else:
        return
    for name in names:
        parts = name.split(".")
        yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    ancestors = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    return ".".join([*ancestors, *([node.module] if node.module else [])])


def _shape(node: object) -> object:
    """A syntax tree as nested tuples that are the same for every version of Python, layout and docstring.

    Texts that stand as statements are docstrings of modules, classes, functions or attributes. Of this package's own
    modules only the last name counts, so that they may move from folder to folder.
    """
    if isinstance(node, list):
        return [_shape(child) for child in node if not _is_docstring(child)]
    if not isinstance(node, ast.AST):
        return node
    fields = {name: value for name, value in ast.iter_fields(node) if name not in ("ctx", "kind")}
    if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == _OURS and not node.level:
        fields["module"] = fields["module"].rpartition(".")[2]
    return type(node).__name__, [(name, _shape(value)) for name, value in fields.items() if value not in (None, [])]


def _is_docstring(node: object) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
