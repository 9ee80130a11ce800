"""The docstring of a plugin as its pages need it."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")


def parse_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The text in one line, and what the Attributes section says about each field.

    Args:
        docstring: in Google style, without the indentation of its class, as `inspect.getdoc` returns it.
    """
    text, _, rest = docstring.partition("\nAttributes:\n")
    attributes: dict[str, str] = {}
    names: list[str] = []
    for line in rest.splitlines():
        entry = _ENTRY.match(line)
        if entry:
            names = entry[1].split(", ")
            attributes |= dict.fromkeys(names, entry[2])
        elif line.startswith("        "):
            attributes |= {name: f"{attributes[name]} {line.strip()}" for name in names}
    return " ".join(text.split()), attributes
