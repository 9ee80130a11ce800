"""board.json and the JSON Schema of records: what programs read of a site."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.records.schema import Latency
from bench.records.store import Store
from bench.report import generate
from tests.builders import LGS, NASTY, both, outcome, saved

ROOT = Path(__file__).resolve().parent.parent.parent


def site(folder: Path, name: str) -> Any:
    return json.loads(generate(folder)[folder / "site" / name])


def test_board_json_has_the_numbers_of_the_records_in_percent(tmp_path: Path) -> None:
    tree = site(saved(tmp_path, *LGS), "board.json")
    (board,) = tree["boards"]
    assert (board["dataset"], board["model"], board["seeds"]) == (LGS[0].cell.dataset, "photos-cnn", [0])
    assert board["attacks"] == {"oblivious": ["patch"], "adaptive": ["patch"]}
    assert {row["defense"] for row in board["rows"]} == {"none", "lgs"}
    cells = {(cell["defense"], cell["attack"], cell["tier"]): cell for cell in board["cells"]}
    cell = cells["lgs", "patch", "adaptive"]
    number = cell["attacked_accuracy"]
    assert number["value"] == pytest.approx(40)
    assert number["low"] < 40 < number["high"]
    assert number["text"] == "40.0"


def test_no_markup_of_a_plugin_stands_in_board_json(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS, outcome("patch", "jpeg", "adaptive", None, reason="<script>alert(1)</script>"))
    (folder / "site").mkdir()
    text = generate(folder)[folder / "site" / "board.json"]
    assert "<" not in text
    assert "<script>alert(1)</script>" in "".join(json.loads(text)["boards"][0]["footnotes"])


def test_a_cell_that_failed_has_no_value_and_says_why(tmp_path: Path) -> None:
    tree = site(saved(tmp_path, *LGS, outcome("patch", "jpeg", "adaptive", None)), "board.json")
    (cell,) = [c for c in tree["boards"][0]["cells"] if c["defense"] == "jpeg" and c["attack"] == "patch"]
    assert cell["attacked_accuracy"]["value"] is None
    assert cell["attacked_accuracy"]["text"] == "timeout"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="the extra dev brings it")
    form = site(saved(tmp_path_factory.mktemp("results"), *LGS), "record.schema.json")
    jsonschema.Draft202012Validator.check_schema(form)
    return jsonschema.Draft202012Validator(form)


def test_every_committed_record_has_the_form_of_the_schema(schema: Any) -> None:
    files = sorted((ROOT / "results" / "records").rglob("*.json"))
    assert files
    for file in files:
        schema.validate(json.loads(file.read_text()))


def test_what_the_store_writes_has_the_form_of_the_schema(schema: Any, tmp_path: Path) -> None:
    latency = Latency("photos", "photos-cnn", "lgs", {1: {"bare": 1.0, "defended": 2.0, "ratio": 2.0}}, "a CPU")
    records = [*both("patch", NASTY, 0.2, 0.1), outcome("patch", "jpeg", "adaptive", None), latency]
    saved(tmp_path, *records)
    files = sorted(Store(tmp_path).records.rglob("*.json"))
    assert len(files) == len(records)
    for file in files:
        schema.validate(json.loads(file.read_text()))


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"},
        {"classes": "ten"},
        {"unknown": 1},
        {"schema": 99},
        {"checksum": "x"},
        {"facts.reached": "012"},
        {"facts.reached": [2]},
        {"cell.seed": -1},
    ],
)
def test_what_is_no_record_has_another_form(change: dict[str, Any], schema: Any, tmp_path: Path) -> None:
    saved(tmp_path, LGS[0])
    (file,) = Store(tmp_path).records.rglob("*.json")
    tree = json.loads(file.read_text())
    assert schema.is_valid(tree)
    for key, value in change.items():
        *outer, last = key.split(".")
        (tree[outer[0]] if outer else tree)[last] = value
    assert not schema.is_valid(tree)
