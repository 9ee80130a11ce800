"""Names -> plugins; built-ins and third parties come through one door."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import typing
from dataclasses import is_dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import InputError
from bench.plugins.source_code import docstrings_of, source_of
from bench.plugins.specs import Spec, build, check_known

if TYPE_CHECKING:
    from bench.contracts import Attack, Defense

Kind = Literal["attack", "defense"]
_GROUPS: dict[Kind, str] = {"attack": "bench.attacks", "defense": "bench.defenses"}
_from_files: dict[tuple[Kind, str], str] = {}


def addresses(kind: Kind) -> dict[str, str]:
    """Name -> `module:attribute` of every plugin, without importing one.

    Raises InputError where a name stands for two plugins.
    """
    group = _GROUPS[kind]
    found: dict[str, str] = dict(importlib.import_module(group).BUILT_IN)
    others = [(point.name, point.value) for point in entry_points(group=group)]
    others += [(name, address) for (one, name), address in _from_files.items() if one == kind]
    for name, address in others:
        if found.setdefault(name, address) != address:
            raise InputError(f"Two {kind}s are named {name!r}: {found[name]} and {address}. Rename or uninstall one.")
    return found


def add_file(path: Path) -> list[str]:
    """Registers the attacks and defenses that a Python file defines, each under its class's `name`; returns the names.

    Raises InputError where there is no such file, it cannot be imported, or defines neither.
    """
    from bench.contracts import Attack, Defense

    path = path.resolve()
    if not path.is_file():
        raise InputError(f"Expected a Python file with a plugin, but there is no file {path}.")
    module_name = f"bench_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    found = importlib.util.spec_from_file_location(module_name, path)
    if found is None or found.loader is None:
        raise InputError(f"Expected a Python file (.py) with a plugin, but got {path}.")
    module = importlib.util.module_from_spec(found)
    sys.modules[module_name] = module
    try:
        found.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"The plugin {path} cannot be imported: {type(error).__name__}: {error}") from error
    names: list[str] = []
    for item in vars(module).values():
        if not inspect.isclass(item) or item.__module__ != module_name or not is_dataclass(item):
            continue
        for kind, base in (("attack", Attack), ("defense", Defense)):
            if issubclass(item, base):
                name = getattr(item, "name", item.__name__.lower())
                _from_files[kind, name] = f"{module_name}:{item.__qualname__}"
                names.append(name)
    if not names:
        raise InputError(
            f"{path} defines no attack and no defense: a frozen dataclass that derives from Attack or Defense."
        )
    for kind in _GROUPS:
        addresses(kind)
    return names


def load_plugin(kind: Kind, name: str) -> type[Any]:
    """The class of an attack or a defense; raises InputError where there is none or it cannot be imported."""
    known = addresses(kind)
    check_known(name, known, kind)
    module_name, _, attribute = known[name].partition(":")
    try:
        return typing.cast("type[Any]", getattr(importlib.import_module(module_name), attribute))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The {kind} {name!r} ({known[name]}) cannot be imported: {type(error).__name__}: {error}"
        ) from error


def make_attack(text: str, effort: str = "standard") -> Attack:
    """An attack from its text; a word after the colon names a preset, else the effort chooses one."""
    return typing.cast("Attack", _make("attack", Spec.parse(text), effort))


def make_defense(text: str, effort: str = "standard") -> Defense:
    """A defense from its text, as `make_attack`; `jpeg+median` is a chain of two."""
    parts = [typing.cast("Defense", _make("defense", Spec.parse(part), effort)) for part in text.split("+")]
    if len(parts) == 1:
        return parts[0]
    from bench.plugins.chain import Chain

    return Chain(tuple(parts))


def _make(kind: Kind, spec: Spec, effort: str) -> Any:
    plugin = load_plugin(kind, spec.name)
    if spec.first:
        check_known(spec.first, plugin.presets, f"preset of {spec.name!r}")
    chosen = dict(plugin.presets.get(spec.first or effort, {}))
    return build(plugin, f"{kind} {spec.name!r}", dict(spec.parameters), chosen)


def first_line(address: str) -> str:
    """The first line of the docstring at `module:Class`, read without importing the module."""
    module, _, name = address.partition(":")
    if source_of(module) is None:
        return "(cannot be read)"
    return next((told.split("\n")[0] for told in docstrings_of(module, name)), "")
