"""A name and its parameters from text, such as `patch:area=0.1,steps=9`, and what is built with them."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.errors import InputError


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


def check_known(name: str, known: Iterable[str], what: str) -> None:
    """Raises InputError with the nearest names where `name` is not known."""
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(repr(one) for one in near)}?" if near else f" Known: {', '.join(names)}."
    raise InputError(f"No {what} named {name!r}.{hint}")


def canonical(text: str) -> str:
    """The text with its parameters in order, part by part."""
    return "+".join(str(Spec.parse(part)) for part in text.split("+"))


def build(make: Callable[..., Any], what: str, parameters: Mapping[str, str], defaults: Mapping[str, Any]) -> Any:
    """Calls `make` with parameters from text, read as its annotations say.

    Raises InputError for an unknown parameter, a value that cannot be read, or one that `make` refuses.
    """
    hints = _hints(make)
    for key in parameters:
        check_known(key, hints, f"parameter of the {what}")
    given = {key: parse_value(value, hints[key], f"{key} of the {what}") for key, value in parameters.items()}
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


def parse_value(text: str, kind: Any, what: str = "value") -> Any:
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
