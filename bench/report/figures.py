"""The charts of the site as PDF and PNG, next to their SVG files."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

from bench.errors import MissingExtraError

ENDINGS = (".pdf", ".png")
_SCALE = 3
"""Pixels of a PNG for a unit of the picture."""


def write_figures(folder: Path) -> list[Path]:
    """Writes each chart of a results folder's site as PDF and PNG where that is missing, and returns these paths.

    Raises:
        MissingExtraError: without cairosvg.
    """
    if find_spec("cairosvg") is None:
        raise MissingExtraError("A figure as PDF or PNG", "figures")
    from cairosvg import svg2pdf, svg2png

    written = []
    for path in sorted((folder / "site").rglob("*.svg")):
        svg = for_cairo(path.read_text(encoding="utf-8")).encode()
        pdf, png = (path.with_suffix(ending) for ending in ENDINGS)
        if not pdf.is_file():
            svg2pdf(svg, write_to=str(pdf))
            written.append(pdf)
        if not png.is_file():
            svg2png(svg, write_to=str(png), scale=_SCALE, background_color="white")
            written.append(png)
    return written


def for_cairo(svg: str) -> str:
    """A chart in the CSS that CairoSVG knows: without variables, dark colours and the colour of the text around."""
    style = re.search(r"<style>(.*?)</style>", svg, re.DOTALL)
    if style is None:
        return svg
    rules = style[1].partition("@media")[0]
    colours = dict(re.findall(r"svg\.chart \.(\w+) \{ --c: ([^;]+); \}", rules))
    named = re.findall(r"svg\.chart (\.\w+) \{([^}]*var\(--c\)[^}]*)\}", rules)
    rules = re.sub(r"[^\n]*--c[^\n]*\n", "", rules)
    for name, colour in colours.items():
        rules += "".join(f".{name} {part} {{{body.replace('var(--c)', colour)}}}\n" for part, body in named)
    rules = rules.replace("svg.chart", "svg").replace("svg.scatter", "svg").replace("system-ui, -apple-system, ", "")
    return (svg[: style.start(1)] + rules + svg[style.end(1) :]).replace("currentcolor", "#1f252b")
