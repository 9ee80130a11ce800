"""The papers' tables: each value as it is printed, and what stands beside it."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.load import DATASETS
from bench.errors import InputError
from bench.models import MODELS
from bench.papers.comparison import ComparedTable, ComparedValue, compare_tables
from bench.papers.match import fits, has_setting
from bench.papers.measure import READINGS, TIMINGS, TRAINING_INCREASE, Measurements
from bench.papers.rank_agreement import Point, agreement
from bench.papers.reported import Reported, ReportedTable, load_reported
from bench.papers.write import CSV_COLUMNS, generate_tables, stale_tables, write_tables
from bench.plugins.registry import make_attack, make_defense
from bench.plugins.specs import Spec
from bench.records.schema import TIERS, Cell, Facts, Latency, Outcome, PluginRecord
from bench.records.store import Store
from bench.report import red_flags

ROOT = Path(__file__).resolve().parent.parent.parent
REPORTED = load_reported(ROOT / "results" / "reported")
TABLES = {one.name: one for one in REPORTED.tables}
CELLS = [(one, *at) for one in REPORTED.tables for at in np.ndindex(len(one.rows), len(one.columns))]
NASTY = "<script>alert(1)</script>|`x`$\\input{x}\n# *y* & ~ ^ _ % 漢 =1+1"
ROMAN = ["I", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV"]


# ------------------------------------------------------------------ the values


def test_the_tables_of_all_five_papers_are_there() -> None:
    promised = {("000", f"Table {one}") for one in range(2, 11)}
    promised |= {("001", one) for one in ("Table 1", "Table 2", "Table 3", "Figure 3")}
    promised |= {("002", f"Table {one}") for one in range(1, 5)}
    promised |= {("003", "Table I"), ("003", "Table II")} | {("004", f"Table {one}") for one in ROMAN}
    assert {(one.paper, one.table) for one in REPORTED.tables} == promised


def printed_lines(paper: str) -> list[list[str]]:
    """The lines of a paper's text as cells, without spaces, bold type and empty lines; rules of tables left out."""
    folder = Path(os.environ.get("BENCH_SHARED", ROOT.parent / "shared")) / "papers"
    files = sorted(folder.glob(f"{paper}-*.txt"))
    if not files:
        pytest.skip("needs the papers' texts: set BENCH_SHARED to the folder that holds them")
    text = re.sub(r"</?b>", "", files[0].read_text(encoding="utf-8")).replace("$\\lambda=", "λ=").replace("$", "")
    lines = [[re.sub(r"\s", "", cell) for cell in line.split("\t")] for line in text.split("\n")]
    return [line for line in lines if any(line) and not line[0].startswith("----")]


def starts(table: ReportedTable, lines: list[list[str]]) -> list[int]:
    """Where the table's rows stand below each other in the text."""
    rows = [[re.sub(r"\s", "", cell) for cell in (row.label, *row.values)] for row in table.rows]
    return [at for at in range(len(lines) - len(rows) + 1) if lines[at : at + len(rows)] == rows]


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"001-figure-03", "001-table-03"}))
def test_the_rows_stand_in_the_papers_text_beside_the_caption(name: str) -> None:
    table, lines = TABLES[name], printed_lines(TABLES[name].paper)
    caption = re.compile(re.escape(table.table.replace(" ", "")) + r"(?![0-9IVX])", re.IGNORECASE)
    near = [
        at
        for at in starts(table, lines)
        if any(caption.match(line[0]) for line in [*lines[at - 4 : at], *lines[at + len(table.rows) :][:2]])
    ]
    assert len(near) == 1


def test_the_row_of_001_table_3_stands_in_the_text_over_two_lines() -> None:
    lines, (row,) = printed_lines("001"), TABLES["001-table-03"].rows
    found = [at for at, line in enumerate(lines) if line == ["LaVAN", *row.values]]
    assert len(found) == 1
    assert [lines[found[0] + 1][0], row.label] == ["BPDA", "LaVAN BPDA"]
    assert lines[found[0] - 1] == ["Defense", *(column.heads[0] for column in TABLES["001-table-03"].columns)]


@pytest.mark.parametrize("name", sorted(set(TABLES) - {"001-figure-03"}))
def test_the_lowest_headings_stand_in_the_line_above_the_rows(name: str) -> None:
    table, lines = TABLES[name], printed_lines(TABLES[name].paper)
    named = [re.sub(r"\s|\{|\}|\\%|\\sim|∼|%", "", column.heads[-1]) for column in table.columns]
    above = [re.sub(r"\{|\}|\\%|\\sim|%", "", cell) for line in lines for cell in line]
    assert set(named) <= set(above)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_value_has_a_query_or_a_reason_why_it_has_none(name: str) -> None:
    for query in (table.query(row, column) for table, row, column in CELLS if table.name == name):
        if query.unmeasured:
            continue
        assert all((query.settings, query.attack, query.defense, query.goal, query.unit, query.data, query.model))
        assert query.attack[0] != "*"
        assert query.goal[0] != "*"
        assert query.measure in {**READINGS, **TIMINGS, TRAINING_INCREASE: None}
        assert set(query.tier) <= set(TIERS)


def asked(kind: str) -> list[str]:
    texts = {text for table, row, column in CELLS for text in getattr(table.query(row, column), kind)}
    return sorted(texts - {"*"})


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind in ("attack", "defense") for text in asked(kind)])
def test_every_attack_and_defense_that_is_asked_for_can_be_made(kind: Any, text: str) -> None:
    made = make_attack(text) if kind == "attack" else make_defense(text)
    assert made


@pytest.mark.parametrize("name", sorted(REPORTED.settings))
def test_every_setting_names_a_data_set_and_a_model_that_there_are(name: str) -> None:
    place = REPORTED.settings[name]
    assert Spec.parse(place.dataset).name in DATASETS
    assert Spec.parse(place.model).name in MODELS


def test_the_sizes_of_lavan_are_those_of_the_paper_in_pixels() -> None:
    for column, side in zip(TABLES["001-table-01"].columns[1:], (42, 52, 60), strict=True):
        area = float(dict(Spec.parse(column.attack[0]).parameters)["area"])
        assert int((area * 299**2) ** 0.5) == side


# ------------------------------------------------------------------ what stands beside them


def facts(attacked: float, clean: float = 0.9, bare: float = 0.1, n: int = 200) -> Facts:
    """`n` images; those right under attack come first."""

    def first(level: float) -> list[float]:
        return (np.arange(n) < round(level * n)).astype(float).tolist()

    reached = [one - other for one, other in zip(first(clean), first(attacked), strict=True)]
    return Facts(
        index=list(range(n)), label=[one % 10 for one in range(n)], eligible=[int(one) for one in first(clean)],
        bare_clean=first(0.9), bare_attacked=first(bare), defended_clean=first(clean),
        defended_attacked=first(attacked), defended_attacked_8bit=first(attacked), reached=reached,
    )  # fmt: skip


def outcome(attack: str, defense: str, attacked: float | None, /, **more: Any) -> Outcome:
    """One record of the data and the model that come with the project, against an attacker who ignores the defense."""
    cell = {"dataset": "photos", "model": "photos-cnn", "tier": "oblivious", "images": 200}
    cell |= {key: more.pop(key) for key in list(more) if key in Cell.__dataclass_fields__}
    parameters = {"attack": more.pop("attack_parameters", {}), "defense": more.pop("defense_parameters", {})}
    traits = {"threat_model": "patch", "budget": "patch ≤ 2 %", "access": "gradients", "universal": False}
    return Outcome(
        cell=Cell(attack=attack, defense=defense, **cell),
        status="ok" if attacked is not None else "timeout",
        reason="" if attacked is not None else "took longer than 60 s",
        classes=10,
        attack=PluginRecord(Spec.parse(attack).name, attack, "", parameters["attack"], more.pop("traits", traits)),
        defense=PluginRecord(Spec.parse(defense).name, defense, "", parameters["defense"], {"kind": "transform"}),
        facts=facts(attacked) if attacked is not None else None,
        **more,
    )


def measurements(outcomes: Sequence[Outcome], latencies: Sequence[Latency] = ()) -> Measurements:
    return Measurements(outcomes, latencies, red_flags(outcomes, latencies))


def compared(name: str, *outcomes: Outcome, latencies: tuple[Latency, ...] = ()) -> ComparedTable:
    only = Reported(REPORTED.papers, REPORTED.settings, (TABLES[name],))
    return compare_tables(only, measurements(outcomes, latencies))[0]


def value(table: ComparedTable, row: str, column: int) -> ComparedValue:
    return table.rows[[one.label for one in table.table.rows].index(row)][column]


LAVAN = {"attack_parameters": {"area": 0.02}, "defense_parameters": {"smoothing": 2.3}, "goal": "targeted"}


def test_a_measured_number_stands_with_its_interval_beside_the_reported_one() -> None:
    one = value(compared("001-table-01", outcome("lavan:area=0.02", "lgs", 0.5, **LAVAN)), "LGS [λ=2.3]", 1)
    assert one.printed == "70.90%"
    assert one.measurement.number
    assert (one.measurement.number.text, one.measurement.number.interval) == ("50.0", "23.7–76.3")  # ten photographs
    assert one.measurement.n == 200


def test_what_differs_is_named_with_what_is_here_and_what_the_paper_has() -> None:
    one = value(compared("001-table-01", outcome("lavan:area=0.02", "lgs", 0.5, **LAVAN)), "LGS [λ=2.3]", 1)
    assert one.measurement.origin
    differs = {what: (here, there) for what, here, there in one.measurement.origin.differences}
    assert set(differs) == {"data", "model", "attack"}
    assert differs["model"] == ("photos-cnn (a small residual net)", "Inception v3")
    assert "patch ≤ 2 %" in differs["attack"][0]
    assert "42×42" in differs["attack"][1]
    assert one.letter in compared("001-table-01", outcome("lavan:area=0.02", "lgs", 0.5, **LAVAN)).origins


def test_the_same_data_and_model_are_not_said_to_differ() -> None:
    place = REPORTED.settings["imagenet-inception"]
    one = value(
        compared(
            "001-table-01", outcome("lavan:area=0.02", "lgs", 0.5, **LAVAN, dataset=place.dataset, model=place.model)
        ),
        "LGS [λ=2.3]",
        1,
    )
    assert one.measurement.origin
    assert [what for what, _, _ in one.measurement.origin.differences] == ["attack"]


def test_records_name_files_with_hashes_and_papers_without() -> None:
    place = REPORTED.settings["cifar10-500-resnet20"]
    names = {"dataset": place.dataset.replace("cifar10-500", "cifar10-500@0123abcd"), "model": place.model}
    record = outcome("lavan:area=0.02", "jpeg", 0.5, **names)
    assert has_setting(place, record.cell.dataset, record.cell.model)
    assert fits("patch:image=x.png", "patch:image=x.png@0123abcd", None)


@pytest.mark.parametrize(
    "other",
    [
        {"attack": "lavan:area=0.05"},
        {"attack": "patch:area=0.02"},
        {"defense": "lgs:smoothing=1.5"},
        {"defense": "jpeg"},
        {"tier": "adaptive"},
        {"dataset": "digits"},
        {"model": "resnet20"},
        {"goal": "targeted:3"},
    ],
    ids=str,
)
def test_a_record_of_something_else_stands_beside_nothing(other: dict[str, str]) -> None:
    given = {"attack": "lavan:area=0.02", "defense": "lgs:smoothing=2.3", "goal": "targeted"} | other
    record = outcome(given.pop("attack"), given.pop("defense"), 0.5, **given)
    assert value(compared("001-table-01", record), "LGS [λ=2.3]", 1).measurement.number is None


def test_the_record_that_is_closest_to_the_paper_is_taken() -> None:
    exact = "lavan:paper,area=0.01974"
    near = outcome("lavan:area=0.02", "lgs:smoothing=2.3", 0.5, goal="targeted", images=0)
    exactly = outcome(exact, "lgs:smoothing=2.3", 0.6, goal="targeted")
    failed = outcome(exact, "lgs:smoothing=2.3", None, goal="targeted", images=100)
    for outcomes in ((near, exactly, failed), (failed, exactly, near)):
        one = value(compared("001-table-01", *outcomes), "LGS [λ=2.3]", 1)
        assert one.measurement.number
        assert one.measurement.number.text == "60.0"


def test_seeds_of_one_cell_are_one_number() -> None:
    seeds = [outcome("lavan:area=0.02", "lgs", level, seed=seed, **LAVAN) for seed, level in enumerate((0.5, 0.6))]
    one = value(compared("001-table-01", *seeds), "LGS [λ=2.3]", 1)
    assert one.measurement.number
    assert one.measurement.number.text == "55.0"
    assert one.measurement.origin
    assert "seeds 0, 1" in one.measurement.origin.records


def test_a_cell_that_failed_shows_its_status_and_no_number() -> None:
    one = value(compared("001-table-01", outcome("lavan:area=0.02", "lgs", None, **LAVAN)), "LGS [λ=2.3]", 1)
    assert one.measurement.number
    assert one.measurement.number.text == "timeout"
    assert np.isnan(one.measurement.interval).all()


def test_what_nobody_measured_names_the_command_that_would() -> None:
    table = compared("001-table-01")
    one = value(table, "LGS [λ=1.5]", 3)
    assert one.measurement.number is None
    words = table.runs[one.run - 1].split()
    assert words[:2] == ["bench", "run"]
    assert "lavan:paper,area=0.04027" in words[words.index("--attack") + 1]
    assert "lgs:smoothing=1.5" in words[words.index("--defense") + 1].split(",")
    assert words[words.index("--tier") + 1] == "oblivious"
    assert "--targeted" in words


def test_commands_compute_what_is_missing_and_nothing_else() -> None:
    table = compared("001-table-01", outcome("lavan:area=0.02", "jpeg:quality=30", 0.5, goal="targeted"))
    defenses = {run: run.split("--defense ")[1].split()[0].split(",") for run in table.runs}
    (special,) = [run for run, named in defenses.items() if named == ["jpeg:quality=30"]]
    assert "area=0.01974" not in special
    assert "area=0.04027" in special
    assert all("jpeg:quality=30" not in named for run, named in defenses.items() if run != special)


def test_a_timing_stands_beside_a_time() -> None:
    times = {"bare": 1.0, "defended": 1.5, "defended_low": 1.4, "defended_high": 1.6, "ratio": 1.5}
    record = Latency("photos", "photos-cnn", "apr", {1: times, 32: times}, "a machine")
    one = value(compared("002-table-4", latencies=(record,)), "ResNet-18", 1)
    assert one.measurement.number
    assert one.measurement.number.text == "50"
    assert one.measurement.origin
    assert "a machine" in one.measurement.origin.records


def test_the_pace_of_a_training_stands_beside_its_increase() -> None:
    def taught(defense: str, **training: float) -> Outcome:
        return replace(outcome("fgsm", defense, 0.5), training=training, provenance={"device": "a machine"})

    records = [
        taught("retrained", seconds=10, images=1000, epochs=2),
        taught("apr:attention=false", seconds=99, images=1000, epochs=1),
        taught("apr", seconds=15, images=500, epochs=4),
    ]
    one = value(compared("002-table-4", *records), "ResNet-18", 0)
    assert one.measurement.number
    assert one.measurement.number.text == "50"
    assert one.measurement.origin
    assert "trained on a machine · control: retrained" in one.measurement.origin.records
    assert value(compared("002-table-4", *records[1:]), "ResNet-18", 0).measurement.number is None


def test_errors_and_accuracies_as_shares_are_in_the_unit_of_the_table() -> None:
    error = outcome("fgsm:eps=0.0045", "none", 0.25, dataset="folder:imagenet-1000,crop=224,resize=256",
                    model="timm:mobilenetv2_100,pad_type=same", effort="quick")  # fmt: skip
    one = value(compared("004-table-04", error), "0.02", 0)
    assert one.measurement.number
    assert one.measurement.number.text == "75.0"
    digits = outcome("fgsm:eps=0.1", "none", 0.25, dataset="digits", model="mnist-cnn:weights=x.safetensors")
    one = value(compared("004-table-13", digits), "0.100", 2)
    assert one.measurement.number
    assert (one.printed, one.measurement.number.text) == ("0.8556", "0.2500")


def test_a_red_flag_of_the_board_stands_beside_the_number() -> None:
    oblivious = outcome("patch:area=0.05", "lgs", 0.2)
    adaptive = outcome("patch:area=0.05", "lgs", 0.8, tier="adaptive")  # weaker than the attacker who knows nothing
    one = value(compared("000-table-06", oblivious, adaptive), "LGS", 0)
    assert "S13" in one.measurement.flags
    assert "S13" not in value(compared("000-table-06", oblivious), "LGS", 0).measurement.flags


@pytest.mark.parametrize(
    ("wanted", "text", "parameters", "answer"),
    [
        ("*", "anything:at=all", {}, True),
        ("patch:area=0.05", "patch", {"area": 0.05}, True),
        ("patch:area=0.05", "patch", {"area": 0.1}, False),
        ("patch:area=0.05", "patch:area=5e-2,steps=9", {}, True),
        ("fgsm:eps=8/255", "fgsm", {"eps": 8 / 255}, True),
        ("patch:uva,area=0.05", "patch:area=0.05", {}, False),
        ("patch:scale=0.8:1", "patch", {"scale": [0.8, 1.0]}, True),
        ("patch:scale=0.8:1", "patch", {"scale": [0.8, 0.9]}, False),
        ("apr:attention=false", "apr", {"attention": False}, True),
        ("tnt", "tnt", {"generator": None}, True),
        ("bit-depth+jpeg", "bit-depth+jpeg", {"parts": ["a", "b"]}, True),
        ("jpeg", "bit-depth+jpeg", {}, False),
        ("lgs", "lgs-like", {}, False),
    ],
)
def test_a_record_fits_a_text_where_it_has_all_of_its_parameters(
    wanted: str, text: str, parameters: dict[str, Any], answer: bool
) -> None:
    record = PluginRecord(Spec.parse(text).name, "", "", parameters, {})
    assert fits(wanted, text, record) is answer


# ------------------------------------------------------------------ the files


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with the papers' tables and some records, one of which has names that want to break out."""
    folder = tmp_path_factory.mktemp("results")
    shutil.copytree(ROOT / "results" / "reported", folder / "reported")
    places = json.loads((folder / "reported" / "settings.json").read_text())
    places["photos"] |= {"datasets": ["photos", "*script*"], "models": ["*"]}
    (folder / "reported" / "settings.json").write_text(json.dumps(places))
    store = Store(folder)
    store.save(outcome("lavan:area=0.02", "lgs", 0.5, **LAVAN))
    store.save(outcome("lavan:area=0.03", "lgs", 0.4, dataset=NASTY, model=f"={NASTY}",
                       defense_parameters={"smoothing": 2.3}, goal="targeted"))  # fmt: skip
    write_tables(folder, red_flags)
    return folder


def test_tables_are_current_until_a_record_comes_or_a_file_changes(results: Path, tmp_path: Path) -> None:
    assert stale_tables(results, red_flags) == []
    copy = shutil.copytree(results, tmp_path / "copy")
    (copy / "tables" / "tables.csv").write_text("")
    (copy / "tables" / "tables.tex").unlink()
    assert stale_tables(copy, red_flags) == [copy / "tables" / "tables.csv", copy / "tables" / "tables.tex"]
    write_tables(copy, red_flags)
    Store(copy).save(outcome("lavan:area=0.04", "lgs", 0.3, **(LAVAN | {"attack_parameters": {"area": 0.04}})))
    assert copy / "tables" / "README.md" in stale_tables(copy, red_flags)


def test_tables_do_not_depend_on_the_order_of_the_records_or_on_the_run(results: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from bench.papers.write import stale_tables; from bench.report import red_flags\n"
        "old = stale_tables(Path(sys.argv[1]), red_flags); assert 'torch' not in sys.modules; sys.exit(len(old))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    assert subprocess.run([sys.executable, "-c", code, str(results)], env=environment, check=False).returncode == 0
    outcomes = list(Store(results).outcomes())
    first = [compare_tables(REPORTED, measurements(one)) for one in (outcomes, outcomes[::-1])]
    assert first[0] == first[1]


def test_all_files_together_are_small(results: Path) -> None:
    files = generate_tables(results, red_flags).values()
    assert sum(len(text.encode()) for text in files) < 600_000


def test_a_name_cannot_break_out_of_markdown(results: Path) -> None:
    text = (results / "tables" / "README.md").read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines()]
    assert len(tables) > 200
    assert all(one == other for one, other in pairwise(bars) if one and other)


def test_the_csv_has_a_line_for_each_value_and_no_formula(results: Path) -> None:
    lines = list(csv.DictReader(StringIO((results / "tables" / "tables.csv").read_text())))
    assert tuple(lines[0]) == CSV_COLUMNS
    assert len(lines) == len(CELLS)
    assert [line["reported"] for line in lines] == [table.rows[row].values[column] for table, row, column in CELLS]
    assert not [text for line in lines for text in line.values() if text[:1] in ("=", "+", "@")]
    measured = [line for line in lines if line["measured"]]
    assert {line["measured"] for line in measured} >= {"50", "40"}
    assert all(line["low"] and line["high"] and line["n"] for line in measured)
    assert all(line["measured"] or line["status"] or line["command"] or line["why_not"] for line in lines)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_the_latex_compiles_whatever_stands_in_a_name(results: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(results / "tables", tmp_path / "tables")
    run = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "tables.tex"]
    done = subprocess.run(
        run, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Undefined" not in done.stdout
    assert "Missing character" not in (folder / "tables.log").read_text(errors="replace")


def test_without_the_papers_tables_the_error_says_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="come with the repository"):
        generate_tables(tmp_path, red_flags)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rows": [{"label": "x", "values": ["1"]}]}, "3 values in the row 'x'"),
        ({"colour": "red"}, "colour"),
        ({"settings": ["atlantis"]}, "atlantis"),
        ({"notes": [{"text": "x", "rows": ["nobody"]}]}, "does not exist"),
    ],
    ids=str,
)
def test_a_table_that_does_not_fit_itself_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folder = shutil.copytree(ROOT / "results" / "reported", tmp_path / "reported")
    path = folder / "002-table-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=words):
        load_reported(folder)


# ------------------------------------------------------------------ the order


def test_the_order_of_a_column_is_held_against_the_papers() -> None:
    # The paper has 11.00 %, 70.90 %, 63.90 % and 25.93 %: ours has the median above LGS.
    measured = {"none": (0.1, {}), "lgs": (0.2, {"smoothing": 2.3}), "median": (0.9, {"size": 3}),
                "bit-depth": (0.12, {"depth": 1})}  # fmt: skip
    outcomes = [
        outcome("lavan:area=0.02", name, value, attack_parameters={"area": 0.02}, defense_parameters=parameters)
        for name, (value, parameters) in measured.items()
    ]
    (order,) = [one for one in compared("001-table-01", *outcomes).agreements if "42x42" in one]
    # Of six pairs five agree: (5 − 1) / 6. The intervals, over ten photographs, set only the median apart.
    assert "Kendall's τ 0.67 over 4 defenses" in order
    assert order.endswith(
        "separate 3 of 6 pairs, 1 of them against the paper's order: LGS [λ=2.3] below MF [window=3]."
    )


def test_no_order_is_told_of_two_defenses_or_of_unlike_attacks() -> None:
    point = Point("", 1, 1, 0, 2)
    assert agreement("x", [point, point]) == ""
    assert agreement("x", [point] * 2 + [point._replace(printed=2)]).endswith("Our intervals separate no pair.")
    outcomes = [
        outcome("lavan:area=0.02", "none", 0.1, attack_parameters={"area": 0.02}),
        outcome("lavan:area=0.02", "lgs", 0.5, **LAVAN),
        outcome("lavan:area=0.03", "median", 0.8, attack_parameters={"area": 0.03}, defense_parameters={"size": 3}),
    ]
    assert not compared("001-table-01", *outcomes).agreements
