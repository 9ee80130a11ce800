"""Names -> plugins, whether they are built in, installed, or defined in a file."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from dataclasses import is_dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from bench.errors import InputError
from bench.plugins.source_code import docstrings_of, source_of
from bench.plugins.specs import Spec, build, canonical, check_known

if TYPE_CHECKING:
    from bench.contracts import Attack, Defense

Kind = Literal["attack", "defense"]
_GROUPS: dict[Kind, str] = {"attack": "bench.attacks", "defense": "bench.defenses"}
FILE_MODULE = "bench_plugin_"
"""How the module of a plugin from a file is called, before a hash of its path."""

_from_files: dict[tuple[Kind, str], str] = {}


def addresses(kind: Kind) -> dict[str, str]:
    """Name -> `module:class` of every plugin; none of them is imported.

    Raises InputError if two plugins have the same name.
    """
    group = _GROUPS[kind]
    every: dict[str, str] = dict(importlib.import_module(group).BUILT_IN)
    others = list(_installed(group, tuple(sys.path)))
    others += [(name, address) for (of_kind, name), address in _from_files.items() if of_kind == kind]
    for name, address in others:
        if every.setdefault(name, address) != address:
            raise InputError(f"Two {kind}s are named {name!r}: {every[name]} and {address}. Rename or uninstall one.")
    return every


@cache
def _installed(group: str, path: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Names and addresses of installed plugins, read once for each `sys.path`."""
    return tuple((point.name, point.value) for point in entry_points(group=group))


def add_file(path: Path) -> list[str]:
    """Registers the attacks and defenses that a Python file defines, and returns their names.

    Raises InputError if the file does not exist, cannot be imported, or defines no plugin.
    """
    from bench.contracts import Attack, Defense

    path = path.resolve()
    if not path.is_file():
        raise InputError(f"Expected a Python file with a plugin, but there is no file {path}.")
    module_name = f"{FILE_MODULE}{hashlib.sha256(os.fsencode(path)).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"Expected a Python file (.py) with a plugin, but got {path}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"The plugin {path} cannot be imported: {type(error).__name__}: {error}") from error
    names: list[str] = []
    for item in vars(module).values():
        if not inspect.isclass(item) or item.__module__ != module_name or not is_dataclass(item):
            continue
        for kind, base in (("attack", Attack), ("defense", Defense)):
            if issubclass(item, base):
                name = item.name or item.__name__.lower()
                _from_files[kind, name] = f"{module_name}:{item.__qualname__}"
                names.append(name)
    if not names:
        raise InputError(f"Expected a frozen dataclass that derives from Attack or Defense in {path}, but found none.")
    for kind in _GROUPS:
        addresses(kind)
    return names


def load_plugin(kind: Kind, name: str) -> type[Any]:
    """The class of an attack or a defense; raises InputError if it does not exist or cannot be imported."""
    known = addresses(kind)
    check_known(name, known, kind)
    module_name, class_name = Spec.parse_address(known[name])
    try:
        return cast("type[Any]", getattr(importlib.import_module(module_name), class_name))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The {kind} {name!r} ({known[name]}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def make_attack(text: str, effort: str = "standard") -> Attack:
    """An attack from its text; a word after the colon names a preset, otherwise the effort chooses one."""
    return cast("Attack", _make("attack", Spec.parse(text), effort))


def make_defense(text: str, effort: str = "standard") -> Defense:
    """A defense from its text, as `make_attack`; `jpeg+median` is a chain of two."""
    parts = [cast("Defense", _make("defense", spec, effort)) for spec in Spec.parse_chain(text)]
    if len(parts) == 1:
        return parts[0]
    from bench.plugins.chain import Chain

    return Chain(tuple(parts))


def canonical_text(kind: Kind, text: str) -> str:
    """The text of a plugin with its parameters in order and one spelling for each value.

    Raises InputError for an unknown name or parameter, or a value that cannot be read.
    """
    specs = Spec.parse_chain(text) if kind == "defense" else (Spec.parse(text),)
    return "+".join(str(canonical(spec, load_plugin(kind, spec.name), _named(kind, spec))) for spec in specs)


def _make(kind: Kind, spec: Spec, effort: str) -> Any:
    plugin = load_plugin(kind, spec.name)
    if spec.first:
        check_known(spec.first, plugin.presets, f"preset of {spec.name!r}")
    preset = dict(plugin.presets.get(spec.first or effort, {}))
    return build(plugin, _named(kind, spec), dict(spec.parameters), preset)


def _named(kind: Kind, spec: Spec) -> str:
    return f"{kind} {spec.name!r}"


def first_line(address: str) -> str:
    """The first line of the docstring at `module:class`, read without importing the module."""
    module_name, class_name = Spec.parse_address(address)
    if source_of(module_name) is None:
        return "(cannot be read)"
    return next((text.split("\n")[0] for text in docstrings_of(module_name, class_name)), "")
