"""Reference pages of all attacks and defenses, made from their docstrings, fields and presets."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

from bench.contracts import Attack, Defense, Transform, UniversalAttack
from bench.core.text import markdown_table
from bench.errors import MissingExtraError
from bench.plugins.docstrings import parse_docstring
from bench.plugins.registry import Kind, addresses, load_plugin


def reference_page(kind: Kind) -> str:
    """The Markdown page of all built-in and installed plugins of one kind."""
    names = sorted(addresses(kind))
    intro = (
        f"# {kind.capitalize()}s\n\nMade by `bench list {kind}s --markdown` from the code; parameters are given as "
        f"`{names[0]}:name=value`, presets as `NAME:PRESET`.\n"
    )
    contents = "\n".join(f"- [`{name}`](#{name})" for name in names)
    return "\n".join([intro, contents, "", *(_section(kind, name) for name in names)])


def _section(kind: Kind, name: str) -> str:
    plugin = load_plugin(kind, name)
    summary, _ = parse_docstring(inspect.getdoc(plugin) or "")
    attributes: dict[str, str] = {}
    for base in reversed(plugin.__mro__):  # the docstring of a base may describe its parameters
        attributes |= parse_docstring(inspect.cleandoc(base.__doc__ or ""))[1]
    lines = [f"## {name}", "", f"**{_escaped(plugin.title)}**. {_escaped(summary)}", ""]
    lines += [f"- {label}: {value}" for label, value in _traits(plugin) if value]
    parameters = [
        (f"`{field.name}`", _default(field), _escaped(attributes.get(field.name, ""))) for field in fields(plugin)
    ]
    if parameters:
        lines += ["", markdown_table(("parameter", "default", "meaning"), parameters, "lll").rstrip()]
    presets = [(f"`{preset}`", _values(values)) for preset, values in plugin.presets.items()]
    if presets:
        lines += ["", markdown_table(("preset", "sets"), presets, "ll").rstrip()]
    return "\n".join([*lines, ""])


def _traits(plugin: type[Any]) -> list[tuple[str, str]]:
    paper = ("Paper", _escaped(plugin.paper))
    note = ("Note", _escaped(plugin.note))
    if issubclass(plugin, Attack):
        try:
            made = plugin()
        except MissingExtraError as error:
            return [("Needs", _escaped(str(error))), ("Access", plugin.access), paper, note]
        budget = f"{made.budget.threat_model}, {_escaped(str(made.budget))}"
        universal = "yes, learned from training images" if isinstance(made, UniversalAttack) else "no, for each image"
        return [("Threat model and budget", budget), ("Access", made.access), ("Universal", universal), paper, note]
    return [
        ("Kind", plugin.kind),
        ("The adaptive attacker differentiates", _escaped(_views(plugin))),
        ("Random", "yes" if issubclass(plugin, Transform) and plugin.random else ""),
        ("Learns", "yes, from training images" if plugin.learn is not Defense.learn else ""),
        ("Tuned on", ", ".join(plugin.tuned_on)),
        ("Ranked", "" if plugin.ranked else "no: an upper bound"),
        paper,
        note,
    ]


def _views(plugin: type[Any]) -> str:
    """The names of a transform's own views, and what its `attacker_views` says."""
    own = plugin.attacker_views not in (Defense.attacker_views, Transform.attacker_views)
    texts = [" and ".join(f"`{view}`" for view in plugin.views)] if issubclass(plugin, Transform) else []
    texts += [parse_docstring(inspect.cleandoc(plugin.attacker_views.__doc__ or ""))[0]] if own else []
    return ". ".join(texts) or "the defended model"


def _default(field: Any) -> str:
    return "required" if field.default is MISSING else _value(field.default)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "`" + ":".join(f"{part:g}" if isinstance(part, float) else str(part) for part in value) + "`"
    return f"`{value:.6g}`" if isinstance(value, float) else f"`{value}`"


def _values(values: Any) -> str:
    return ", ".join(f"`{key}` = {_value(value)}" for key, value in values.items()) or "the defaults"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
