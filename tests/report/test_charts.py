"""Charts: which cells lie on a curve, and what is drawn where."""

from __future__ import annotations

import csv
import re
from io import StringIO
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.engine.roc import trace
from bench.records.roc import Roc, save_roc
from bench.records.samples import Sample
from bench.records.schema import Latency, Outcome, PluginRecord
from bench.records.store import Store
from bench.report import generate
from bench.report.charts.chart import charts
from bench.report.charts.curves import curve_svg, find_curves, format_value
from bench.report.charts.svg import LABEL, Panel, Series

from ..builders import LGS, NASTY, PATCH, outcome, saved


def on(area: float, defense: str, tier: str, level: float | None, **more: object) -> Outcome:
    """A cell of a patch of this area."""
    record = PluginRecord("patch", "Patch", "", {"area": area, "steps": 10, **more}, PATCH)
    return outcome(f"patch:area={area}", defense, tier, level, attack=record)


AREAS = {0.01: 0.9, 0.05: 0.6, 0.25: 0.1}


CELLS = [
    on(area, defense, tier, level * (1 if tier == "oblivious" else 0.5))
    for area, level in AREAS.items()
    for defense in ("none", "lgs")
    for tier in ("oblivious", "adaptive")
]


def samples(*outcomes: Outcome) -> list[Sample]:
    return [Sample((one,)) for one in outcomes]


def test_cells_that_differ_in_one_number_only_lie_on_one_curve() -> None:
    others = [
        on(0.1, "lgs", "adaptive", 0.5, decay=True),  # another parameter differs, too
        outcome("patch:area=0.1", "lgs", "adaptive", 0.4, attack=CELLS[0].attack, dataset="digits"),
        on(0.7, "lgs", "adaptive", None),  # failed
    ]
    ((curve, found),) = find_curves(samples(*CELLS, *others)).items()
    assert (curve.plugin, curve.parameter, curve.kind) == ("patch", "area", "attack")
    assert {key: list(points) for key, points in found.items()} == {
        (defense, tier): list(AREAS) for defense in ("lgs", "none") for tier in ("adaptive", "oblivious")
    }


def test_two_values_are_no_curve_and_a_defense_can_have_one() -> None:
    assert not find_curves(samples(*CELLS[:8]))
    records = [
        PluginRecord("jpeg", "JPEG", "", {"quality": one, "fast": True}, {"kind": "transform"}) for one in (10, 30, 75)
    ]
    cells = [
        outcome("patch", f"jpeg:quality={one.parameters['quality']}", "adaptive", 0.5, defense=one) for one in records
    ]
    ((curve, found),) = find_curves(samples(*cells)).items()
    assert (curve.kind, curve.parameter, list(found)) == ("defense", "quality", [("patch", "adaptive")])
    assert "clean_accuracy" in curve.measures


def test_the_data_of_a_curve_are_the_numbers_of_the_records() -> None:
    (chart,) = charts(samples(*CELLS), (), ())
    rows = list(csv.DictReader(StringIO(chart.data)))
    told = {
        (float(row["value"]), row["line"], row["tier"]): float(row["estimate"])
        for row in rows
        if row["measure"] == "attacked_accuracy"
    }
    assert told == {
        (area, defense, tier): level if tier == "oblivious" else level / 2
        for area, level in AREAS.items()
        for defense in ("none", "lgs")
        for tier in ("oblivious", "adaptive")
    }
    for row in rows:
        assert float(row["low"]) <= float(row["estimate"]) <= float(row["high"])
    assert [name.rpartition("-")[2] for name in chart.pictures] == ["accuracy.svg", "delta.svg", "beta.svg"]


def test_a_curve_is_a_picture_of_its_own_whose_points_lie_where_they_should() -> None:
    ((curve, found),) = find_curves(samples(*CELLS)).items()
    root = ElementTree.fromstring(curve_svg(curve, found, "attacked_accuracy", alone=True))  # noqa: S314  # our own
    name = "{http://www.w3.org/2000/svg}"
    paths = [one.attrib["d"] for one in root.iter(f"{name}path") if one.attrib["class"] == "line"]
    assert len(paths) == 4
    heights = [[float(point.split()[1]) for point in path[1:].split("L")] for path in paths]
    assert all(one < other for path in heights for one, other in pairwise(path))  # accuracy falls, y grows downwards
    places = [[float(point.split()[0]) for point in path[1:].split("L")] for path in paths]
    assert places[0][1] - places[0][0] == pytest.approx(places[0][2] - places[0][1], abs=0.2)  # 0.01, 0.05, 0.25: log
    texts = [one.text for one in root.iter(f"{name}text")]
    assert {"oblivious attacker", "adaptive attacker", "lgs", "none", "0.25"} <= set(texts)


def test_labels_keep_their_distance_and_stay_in_the_picture() -> None:
    series = tuple(Series(f"line {one}", (1.0, 2.0), (50.0, 0.1 * one)) for one in range(24))
    panel = Panel("", series, "", "", ((1.0, "1"), (2.0, "2")), (0.0, 100.0), height=400)
    places = sorted(one.label_y for one in panel.lines)
    assert min(b - a for a, b in pairwise(places)) >= LABEL - 1e-9
    assert 0 < places[0] < places[-1] <= panel.height
    assert len({(one.classes, one.shape) for one in panel.lines}) == 24


def test_markup_in_names_is_inert_in_pictures_and_data(tmp_path: Path) -> None:
    cells = [on(area, NASTY, "adaptive", 0.5) for area in AREAS]
    cells += [
        outcome("patch", "=1+1", "adaptive", 0.5, attack=on(one, "x", "adaptive", 0.5).attack, images=int(100 * one))
        for one in AREAS
    ]
    time = Latency(NASTY, "photos-cnn", NASTY, {1: {"bare": 1.0, "defended": 2.0}}, NASTY)
    files = {path.name: text for path, text in generate(saved(tmp_path, *cells, time)).items()}
    pictures = [text for name, text in files.items() if name.endswith(".svg")]
    assert len(pictures) == 4
    for picture in pictures:
        assert "<script>" not in picture
        ElementTree.fromstring(picture)  # noqa: S314  # our own
    assert "<script>alert" not in files["curves.html"]


def test_a_formula_in_a_name_is_text_in_the_data() -> None:
    cells = [on(area, "=1+1", "adaptive", 0.5) for area in AREAS]
    (chart,) = charts(samples(*cells), (), ())
    assert {row["line"] for row in csv.DictReader(StringIO(chart.data))} == {"'=1+1"}


def test_values_are_told_as_people_write_them() -> None:
    assert [format_value(one) for one in (8 / 255, 0.05, 100.0, 0.1, 1.0)] == ["8/255", "0.05", "100", "0.1", "1"]


def took(defense: str, ms: float) -> Latency:
    batch = {"bare": 1.0, "defended": ms, "defended_low": ms, "defended_high": 2 * ms, "ratio": ms}
    return Latency("photos", "photos-cnn", defense, {1: batch}, "m")


def test_times_are_bars_in_order_with_their_data() -> None:
    times = [took("slow", 50.0), took("quick", 0.5), took("fair", 5.0)]
    (chart,) = charts((), times, ())
    ((_, picture),) = chart.inline
    assert re.findall(r">(\w+)</text>\n<path class=\"bar\"", picture) == ["quick", "fair", "slow"]
    ends = [float(one) for one in re.findall(r'class="bar" d="M190 \d+H([\d.]+)', picture)]
    assert ends[2] - ends[1] == pytest.approx(ends[1] - ends[0], abs=0.2)  # ten times each: a logarithmic axis
    assert "fair,1,defended,5.0" in chart.data


def test_roc_curves_of_one_attack_are_drawn_together_the_bare_model_first(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS)
    scores = np.random.default_rng(1).normal(size=(40, 2))
    one = trace(np.broadcast_to([False, True], scores.shape), scores)
    for number in (3, 1):
        cell, made_from = LGS[number].cell, LGS[number].fingerprints
        save_roc(Store(folder), Roc(cell, one, one, one if number == 3 else None, made_from))
    save_roc(Store(folder), Roc(LGS[2].cell, one, one, None, {"data": "another"}))  # not of this record: left out
    files = {path.name: text for path, text in generate(folder).items()}
    (picture,) = [text for name, text in files.items() if name.startswith("roc-") and name.endswith(".svg")]
    assert re.findall(r"heading [a-z]*\">([^<]*)<", picture) == [
        "true class, attacked images", "true class, clean images", "attacked against clean images",
    ]  # fmt: skip
    assert re.findall(r">[\d.]+ (none|lgs)<", picture) == ["none", "lgs", "none", "lgs", "lgs"]
    assert picture.count('class="base"') == 2


def test_a_picture_is_the_same_every_time() -> None:
    ((curve, found),) = find_curves(samples(*CELLS)).items()
    ((again, found_again),) = find_curves(samples(*reversed(CELLS))).items()
    assert curve_svg(curve, found, "beta") == curve_svg(again, found_again, "beta")
