"""Text made safe for the terminal, Markdown and spreadsheets."""

from __future__ import annotations

import re


def plain(text: str) -> str:
    """Text without line ends and other control characters, so that it cannot leave its place."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def inert(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{plain(text)}" if plain(text)[:1] in tuple("=+-@") else plain(text)


def signed(value: float) -> str:
    """One decimal, with a true minus and no minus before zero."""
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def escape(text: str) -> str:
    """Text that means itself in Markdown and in a cell of a table."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|~#$])", r"\\\1", text).replace("://", ":\\//")
