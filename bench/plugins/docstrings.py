"""Google-style docstrings of plugins, taken apart for their pages."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*)$")


def parse_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The text in one line, and what the Attributes section says of each field.

    Args:
        docstring: without the indentation of its class, as `inspect.getdoc` gives it.
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
