"""Charts as PDF and PNG."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.errors import MissingExtraError
from bench.report import figures, write_figures, write_report

from ..builders import both, outcome, saved

BOARD = [each for number in range(8) for each in both("patch", f"d{number}", 0.9, 0.3 + number / 20)]


def test_without_its_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"defense-bench\[figures\]"):
        write_figures(tmp_path)


@pytest.mark.skipif(find_spec("cairosvg") is None, reason="needs cairosvg")
def test_each_chart_has_a_pdf_and_a_png_until_its_records_change(tmp_path: Path) -> None:
    from PIL import Image

    folder = saved(tmp_path, *BOARD)
    write_report(folder)
    (svg,) = (folder / "site").rglob("*.svg")
    assert write_figures(folder) == [svg.with_suffix(".pdf"), svg.with_suffix(".png")]
    assert svg.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    with Image.open(svg.with_suffix(".png")) as picture:
        assert picture.width == 3 * 460
        colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20) or []}
    assert (168, 72, 10) in colours  # the dots
    assert write_figures(folder) == write_report(folder) == []
    saved(folder, outcome("patch", "d7", "adaptive", 0.9))
    assert svg.with_suffix(".png") in write_report(folder)
    assert not svg.with_suffix(".png").exists()


def test_no_chart_for_cairo_has_variables() -> None:
    svg = (
        "<svg><style>svg.chart .line { stroke: var(--c); }\nsvg.chart .c0 { --c: #0072b2; }\n@media x { }</style></svg>"
    )
    assert "stroke: #0072b2" in figures.for_cairo(svg)
    assert "var(" not in figures.for_cairo(svg)
    assert "@media" not in figures.for_cairo(svg)
