"""What the code says about built-in plugins; it is read, never imported."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from inspect import cleandoc

from bench.errors import InputError
from bench.plugins.docstrings import parse_docstring
from bench.plugins.registry import Kind
from bench.plugins.source_code import docstrings_of, fingerprint_of, source_of
from bench.plugins.specs import Spec


@dataclass(frozen=True)
class PluginDocs:
    """The documentation and code of a built-in plugin; empty for any other.

    Attributes:
        descriptions: of each part of a chain.
        parameters: parameter -> its meaning.
        code: file name -> source.
        fingerprint: of that code, as in records.
    """

    descriptions: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    fingerprint: str = ""


@lru_cache(maxsize=512)
def plugin_docs(kind: Kind, text: str) -> PluginDocs:
    """The documentation of an attack or a defense, for a chain that of all its parts."""
    built_in: dict[str, str] = importlib.import_module(f"bench.{kind}s").BUILT_IN
    try:
        specs = Spec.parse_chain(text)
    except InputError:
        return PluginDocs()
    names = list(dict.fromkeys(spec.name for spec in specs))
    if not all(name in built_in for name in names):
        return PluginDocs()
    addresses = [Spec.parse_address(built_in[name]) for name in names]
    modules = [module for module, _ in addresses]
    lineages = [[parse_docstring(cleandoc(one)) for one in docstrings_of(*address)] for address in addresses]
    sources = [source for source in map(source_of, modules) if source]
    return PluginDocs(
        descriptions=tuple(lineage[0][0] for lineage in lineages if lineage),
        parameters={
            name: meaning
            for lineage in lineages
            for _, attributes in reversed(lineage)
            for name, meaning in attributes.items()
        },
        code={source.name: source.read_text(encoding="utf-8") for source in sources},
        fingerprint=fingerprint_of([*modules, *(["bench.plugins.chain"] if len(specs) > 1 else [])]),
    )
