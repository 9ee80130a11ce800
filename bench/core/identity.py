"""How records name files and folders: by their last name and a short hash of their content, never by their path."""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from bench.core.files import write_text

_HASH = re.compile(r"@[0-9a-f]{8}(?=[,;+]|$)")
_SEPARATORS = re.compile(r"[\s,=:;+@/\\\x00-\x1f\x7f]+")
_FOLDERS = re.compile(
    r"""(?<=['"])(?:~|[A-Za-z]:)?[/\\](?![/\\])[^'"\n]*[/\\]"""  # in quotes, where it may hold spaces
    r"""|(?<![\w./\\-])(?:~|[A-Za-z]:)?[/\\](?![/\\])(?:[^\s'"<>|:,;()=]+[/\\])+"""
)
_KEPT = 20
"""Former identities that are remembered for one path."""


def identity_of(path: Path, content: str, name: str | None = None) -> str:
    """What records call a file or folder, such as `best.pt@1a2b3c4d`.

    Args:
        path: where it is on this machine.
        content: the SHA-256 of its content, in hex.
        name: what to call it; by default its own name, without characters that separate parameters.
    """
    own = os.fsencode(name or path.resolve().name).decode(errors="replace")
    return f"{_SEPARATORS.sub('-', own).strip('-') or 'root'}@{content[:8]}"


def without_hashes(text: str) -> str:
    """A text of a cell with the names of its files and folders only."""
    return _HASH.sub("", text)


def without_folders(text: str) -> str:
    """A message with the last name of every absolute path in it, and without characters that cannot be written."""
    return _FOLDERS.sub("", text.encode(errors="replace").decode())


def former_identities(path: Path, identity: str) -> tuple[str, ...]:
    """What records called this very path before its content changed, the latest first.

    A cell of theirs is out of date, unlike one of another file of that name. They are remembered in the cache folder.
    """
    from bench.core.tensor_cache import cache_folder

    key = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    memory = cache_folder() / "identities" / key
    known: list[str] = []
    with suppress(OSError, ValueError):
        known = [line for line in memory.read_text(encoding="utf-8").split("\n") if _HASH.search(line)]
    if known[:1] != [identity]:
        known = [identity, *(line for line in known if line != identity)]
        with suppress(OSError):
            write_text(memory, "\n".join(known[:_KEPT]), lasting=False)
    return tuple(line for line in known if line != identity and without_hashes(line) == without_hashes(identity))
