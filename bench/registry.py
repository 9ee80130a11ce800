"""Names -> plugins, and parameters from text; built-ins and third parties come through one door."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import InputError
from bench.sources import docstrings_of, source_of

if TYPE_CHECKING:
    from bench.contracts import Attack, Defense

Kind = Literal["attack", "defense"]
_GROUPS: dict[Kind, str] = {"attack": "bench.attacks", "defense": "bench.defenses"}
_from_files: dict[tuple[Kind, str], str] = {}


@dataclass(frozen=True)
class Spec:
    """A name with its parameters as text: `name`, `name:first`, `name:key=value,…`, `name:first,key=value,…`."""

    name: str
    first: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Reads the text form; raises InputError where it has none."""
        name, _, rest = text.strip().partition(":")
        items = [item.strip() for item in rest.split(",")] if rest else []
        first = items.pop(0) if items and "=" not in items[0] else None
        pairs = [tuple(item.split("=", 1)) for item in items]
        if not name or any(len(pair) != 2 or not pair[0] for pair in pairs):
            raise InputError(f"Expected NAME or NAME:key=value,key=value, but got {text!r}.")
        keys = [pair[0] for pair in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise InputError(f"{text!r} gives {twice[0]!r} more than once.")
        return cls(name, first or None, tuple(sorted((pair[0], pair[1]) for pair in pairs)))

    def __str__(self) -> str:
        parts = ([self.first] if self.first else []) + [f"{key}={value}" for key, value in self.parameters]
        return self.name + (":" + ",".join(parts) if parts else "")


def split_specs(text: str) -> list[str]:
    """`fgsm,patch:area=0.1,steps=9,none` -> its three specs; an item with `=` belongs to the name before it."""
    specs: list[str] = []
    for item in text.split(","):
        if specs and "=" in item and ":" not in item.split("=")[0]:
            specs[-1] += ("," if ":" in specs[-1] else ":") + item
        elif item.strip():
            specs.append(item.strip())
    return specs


def lookup(name: str, known: Iterable[str], what: str) -> None:
    """Raises InputError with the nearest names where `name` is not known."""
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(one) for one in near)}?" if near else f" Known: {', '.join(names)}."
    raise InputError(f"No {what} named {name!r}.{hint}")


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


def load(kind: Kind, name: str) -> type[Any]:
    """The class of an attack or a defense; raises InputError where there is none or it cannot be imported."""
    known = addresses(kind)
    lookup(name, known, kind)
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
    from bench.chain import Chain

    return Chain(tuple(parts))


def canonical(text: str) -> str:
    """The text with its parameters in order, part by part."""
    return "+".join(str(Spec.parse(part)) for part in text.split("+"))


def _make(kind: Kind, spec: Spec, effort: str) -> Any:
    plugin = load(kind, spec.name)
    if spec.first:
        lookup(spec.first, plugin.presets, f"preset of {spec.name!r}")
    chosen = dict(plugin.presets.get(spec.first or effort, {}))
    return build(plugin, f"{kind} {spec.name!r}", dict(spec.parameters), chosen)


def build(make: Callable[..., Any], what: str, parameters: Mapping[str, str], defaults: Mapping[str, Any]) -> Any:
    """Calls `make` with parameters from text, read as its annotations say.

    Raises InputError for an unknown parameter, a value that cannot be read, or one that `make` refuses.
    """
    hints = _hints(make)
    for key in parameters:
        lookup(key, hints, f"parameter of the {what}")
    given = {key: read(value, hints[key], f"{key} of the {what}") for key, value in parameters.items()}
    try:
        return make(**{**defaults, **given})
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"The {what} refuses its parameters: {error}") from error


@cache
def _hints(make: Callable[..., Any]) -> dict[str, Any]:
    if is_dataclass(make):
        hints = typing.get_type_hints(make)
        return {field.name: hints[field.name] for field in fields(make) if field.init}
    hints = typing.get_type_hints(make)
    return {name: hints.get(name, str) for name in inspect.signature(make).parameters}


def read(text: str, kind: Any, what: str = "value") -> Any:
    """One value from text: numbers may be fractions (8/255), tuples are written with colons (0.8:1).

    Raises InputError where the text does not fit the annotation `kind`.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(_plain(text, kind))
    except (ValidationError, ValueError, ZeroDivisionError):
        raise InputError(f"Expected {_words(kind)} for {what}, but got {text!r}.") from None


def _plain(text: str, kind: Any) -> Any:
    """Text, or what stands in it: None, a fraction, the parts of a tuple."""
    if text.lower() == "none" and type(None) in typing.get_args(kind):
        return None
    inner = [one for one in typing.get_args(kind) if one is not type(None)]
    optional_tuple = ":" in text and any(typing.get_origin(one) is tuple for one in inner)
    if typing.get_origin(kind) is tuple or optional_tuple:
        return tuple(_plain(part, float) for part in text.split(":"))
    if "/" in text and (kind is float or float in inner):
        return float(Fraction(text))
    return text


def _words(kind: Any) -> str:
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(repr(one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return "numbers with colons between them"
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "a path",
        type(None): "none",
    }
    if kind in names:
        return names[kind]
    return " or ".join(_words(one) for one in typing.get_args(kind)) or str(kind)


def first_line(address: str) -> str:
    """The first line of the docstring at `module:Class`, read without importing the module."""
    module, _, name = address.partition(":")
    if source_of(module) is None:
        return "(cannot be read)"
    return next((told.split("\n")[0] for told in docstrings_of(module, name)), "")
