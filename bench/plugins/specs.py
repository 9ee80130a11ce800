"""The grammar of names with parameters, such as `patch:area=0.1,steps=9` or `jpeg:quality=30+median`."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

from bench.errors import InputError

_NEXT_IN_CHAIN = re.compile(r"\+(?=[a-zA-Z][\w-]*(?:[:+]|$))")
_LONGEST_DECIMAL = 14
"""Characters of a decimal; a number that needs more is written as a fraction if it is one."""


@dataclass(frozen=True)
class Spec:
    """A name and its parameters as text: `name`, `name:first`, `name:key=value,…` or `name:first,key=value,…`."""

    name: str
    first: str | None = None
    parameters: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Spec:
        """Reads one name with its parameters; raises InputError if the text has another form."""
        name, _, rest = text.strip().partition(":")
        items = [item.strip() for item in rest.split(",")] if rest else []
        first = items.pop(0) if items and "=" not in items[0] else None
        pairs = [tuple(item.split("=", 1)) for item in items]
        if not name or any(len(pair) != 2 or not pair[0] for pair in pairs):
            raise InputError(f"Expected NAME or NAME:key=value,key=value, but got {text!r}.")
        keys = [pair[0] for pair in pairs]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise InputError(f"{text!r} gives {repeated[0]!r} more than once.")
        return cls(name, first or None, tuple(sorted((pair[0], pair[1]) for pair in pairs)))

    @classmethod
    def parse_chain(cls, text: str) -> tuple[Spec, ...]:
        """The parts of a defense's text: two of `jpeg:quality=30+median`, one of `lgs`."""
        return tuple(cls.parse(part) for part in _NEXT_IN_CHAIN.split(text))

    @classmethod
    def parse_address(cls, text: str) -> tuple[str, str]:
        """Module and attribute of an address such as `acme.defenses:Blur`."""
        module, _, attribute = text.partition(":")
        return module, attribute

    def __str__(self) -> str:
        items = ([self.first] if self.first else []) + [f"{key}={value}" for key, value in self.parameters]
        return self.name + (":" + ",".join(items) if items else "")


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
    """Raises InputError with the nearest names if `name` is not known."""
    names = sorted(known)
    if name in names:
        return
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else f" Known: {', '.join(names)}."
    raise InputError(f"No {what} named {name!r}.{hint}")


def build(make: Callable[..., Any], what: str, parameters: Mapping[str, str], defaults: Mapping[str, Any]) -> Any:
    """Calls `make` with parameters from text, read according to its annotations.

    Raises InputError for an unknown parameter, a value that cannot be read, or one that `make` refuses.
    """
    values = _values(make, what, parameters)
    try:
        return make(**{**defaults, **values})
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(f"The {what} refuses its parameters: {error}") from error


def canonical(spec: Spec, make: Callable[..., Any], what: str) -> Spec:
    """The spec with one spelling for each value: `eps=0.10` becomes `eps=0.1`, `quality=030` becomes `quality=30`.

    Raises InputError for an unknown parameter or a value that cannot be read.
    """
    texts = dict(spec.parameters)
    values = _values(make, what, texts)
    return Spec(spec.name, spec.first, tuple((key, _written(values[key], text)) for key, text in texts.items()))


def _values(make: Callable[..., Any], what: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """The parameters as the annotations of `make` say; a Python value for what only its `**parameters` take."""
    kinds, takes_more = _annotations(make)
    if not takes_more:
        for key in parameters:
            check_known(key, kinds, f"parameter of the {what}")
    return {
        key: parse_value(value, kinds[key], f"{key} of the {what}") if key in kinds else _literal(value)
        for key, value in parameters.items()
    }


@cache
def _annotations(make: Callable[..., Any]) -> tuple[dict[str, Any], bool]:
    """The annotation of each parameter, and whether it takes any others."""
    hints = typing.get_type_hints(make)
    if is_dataclass(make):
        return {field.name: hints[field.name] for field in fields(make) if field.init}, False
    parameters = inspect.signature(make).parameters.values()
    named = {one.name: hints.get(one.name, str) for one in parameters if one.kind is not one.VAR_KEYWORD}
    return named, len(named) < len(parameters)


def _literal(text: str) -> Any:
    """The Python value that a text stands for, or the text itself."""
    words = {"true": True, "false": False, "none": None}
    try:
        return words[text.lower()] if text.lower() in words else ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def parse_value(text: str, kind: Any, what: str = "value") -> Any:
    """One value from text: numbers may be fractions (8/255), tuples are written with colons (0.8:1).

    Raises InputError if the text does not fit the annotation `kind`.
    """
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(_plain(text, kind))
    except (ValidationError, ValueError, ZeroDivisionError):
        raise InputError(f"Expected {_description(kind)} for {what}, but got {text!r}.") from None


def write_value(value: Any) -> str:
    """The one text of a value that `parse_value` reads; numbers are short decimals, or fractions such as 8/255."""
    if isinstance(value, tuple):
        return ":".join(map(write_value, value))
    if not isinstance(value, float):
        return str(value).lower() if value is None or isinstance(value, bool) else str(value)
    decimal = repr(value).removesuffix(".0")
    if len(decimal) > _LONGEST_DECIMAL:
        fraction = Fraction(value).limit_denominator(10_000)
        if float(fraction) == value:
            return str(fraction)
    return decimal


def _written(value: Any, text: str) -> str:
    """`write_value`, but the text itself for kinds of values that have no spelling of their own."""
    return write_value(value) if value is None or isinstance(value, bool | int | float | tuple) else text


def _plain(text: str, kind: Any) -> Any:
    """The text, or what it stands for: None, a fraction, the parts of a tuple."""
    if text.lower() == "none" and type(None) in typing.get_args(kind):
        return None
    inner = [option for option in typing.get_args(kind) if option is not type(None)]
    optional_tuple = ":" in text and any(typing.get_origin(option) is tuple for option in inner)
    if typing.get_origin(kind) is tuple or optional_tuple:
        return tuple(_plain(part, float) for part in text.split(":"))
    if "/" in text and (kind is float or float in inner):
        with suppress(ValueError):  # it may be a path
            return float(Fraction(text))
    return text


_DESCRIPTIONS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    type(None): "none",
}


def _description(kind: Any) -> str:
    """What an annotation asks for, in words."""
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return "numbers with colons between them"
    return _DESCRIPTIONS.get(kind) or " or ".join(map(_description, typing.get_args(kind))) or str(kind)
