"""What the numbers of a plugin depend on: its code, its parameters, and the files that they name."""

from __future__ import annotations

import hashlib

from bench.contracts import Attack, Defense, Plugin
from bench.core.files import content_hash
from bench.plugins.registry import Kind
from bench.plugins.source_code import fingerprint_of


def code_fingerprint(plugin: Plugin) -> str:
    """Changes if the code of the plugin does, or the code of its components or of what it imports; 12 hex digits."""
    return fingerprint_of([type(part).__module__ for part in (plugin, *plugin.components())])


def plugin_fingerprints(kind: Kind, plugin: Attack | Defense) -> dict[str, str]:
    """What a record keeps of a plugin: if one of these is another one today, the record is stale.

    Returns:
        `attack` or `defense` with the fingerprint of the code; and only if its parameters name files, `files of the
        attack` or `files of the defense` with one of their contents.
    """
    contents = " ".join(_contents(plugin))
    of_files = {f"files of the {kind}": hashlib.sha256(contents.encode()).hexdigest()[:12]} if contents else {}
    return {kind: code_fingerprint(plugin)} | of_files


def plugin_key(plugin: Plugin) -> str:
    """All that the results of a plugin depend on, as text: parameters, code, and the content of files."""
    own = [type(plugin).__qualname__, repr(plugin.parameters), code_fingerprint(plugin), *_contents(plugin)]
    return " ".join([*own, *map(plugin_key, plugin.components())])


def _contents(plugin: Plugin) -> list[str]:
    """Hashes of the files and modules that the parameters name."""
    modules = plugin.modules()
    return [*map(content_hash, plugin.files()), *([fingerprint_of(modules)] if modules else [])]
