"""Text that is safe on a terminal, in Markdown, LaTeX and spreadsheets."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Sequence
from io import StringIO

_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~#$])")
_NO_FORMULA = re.compile(r"-?[\d.,]+(e-?\d+)?\s?%?|-+")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "'": r"\textquotesingle{}",
    "–": "--", "—": "---", "−": "$-$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "∞": r"$\infty$",
    "∼": r"$\sim$", "·": r"$\cdot$", "…": r"\dots{}", "→": r"$\to$", "±": r"$\pm$", "†": r"\textdagger{}",
    "α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "δ": r"$\delta$", "ε": r"$\varepsilon$",
    "ϵ": r"$\epsilon$", "λ": r"$\lambda$", "σ": r"$\sigma$", "μ": r"$\mu$",
    "’": "'", "‘": "`", "“": "``", "”": "''", "\u00a0": "~",
}  # fmt: skip
_ACCENTED = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"


def plain(text: str) -> str:
    """Text on one line, without control characters."""
    if not text.isprintable():
        text = "".join(one if one.isprintable() else " " for one in text)
    return " ".join(text.split())


def signed(value: float) -> str:
    """A number with one decimal and a real minus sign; never "−0.0"."""
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is, also in a table cell."""
    text = plain(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text).replace("://", ":\\//")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A Markdown table.

    Args:
        head, rows: escaped cells.
        align: for each column `l` (left) or `r` (right).
    """
    rules = [{"l": "---", "r": "--:"}[column] for column in align]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rules, *rows))


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is; a character that the usual fonts lack becomes its number, as in [U+6F22]."""
    return "".join(
        _LATEX.get(one, one if one.isascii() or one in _ACCENTED else f"[U+{ord(one):04X}]") for one in plain(text)
    )


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV. NaN and None are empty cells, and no text is a formula to a spreadsheet."""
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows([_csv_cell(one) for one in row] for row in rows)
    return text.getvalue()


def _csv_cell(value: object) -> object:
    if isinstance(value, float) and math.isnan(value):
        return ""
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if text[:1] in tuple("=+-@") and not _NO_FORMULA.fullmatch(text) else text
