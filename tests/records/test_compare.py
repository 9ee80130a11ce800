"""Two results folders compared, and records exported."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench.errors import InputError, MissingExtraError
from bench.records import export as exporting
from bench.records.compare import Change, compare_folders, comparison_markdown, drops
from bench.records.export import export
from bench.records.latex import latex_tables
from bench.records.metrics import MEASURES
from bench.records.schema import Cell, Facts, Outcome, PluginRecord
from bench.records.store import Store
from bench.report.frame import load_results

N = 100


def record(defense: str, attacked: list[float], clean: list[float] | None = None, **more: str) -> Outcome:
    clean = clean or [1.0] * N
    one = [1.0] * N
    facts = Facts(
        list(range(N)), [0] * N, [1] * N, one, one, clean, attacked, attacked, [1 - value for value in attacked]
    )
    cell = Cell("cifar10", "photos-cnn", "patch", defense, "adaptive", images=N)
    attack = PluginRecord(
        "patch", "patch", "", {}, {"threat_model": "patch", "budget": "patch ≤ 5 %", "access": "none"}
    )
    prints = {"data": "d", "weights": "w"} | more
    defended = PluginRecord(defense, defense, "", {}, {"kind": "transform"})
    return Outcome(cell, "ok", classes=10, attack=attack, defense=defended, facts=facts, fingerprints=prints)


def share(percent: int) -> list[float]:
    return [1.0] * percent + [0.0] * (N - percent)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "a", tmp_path / "b"
    before = [record("same", share(50)), record("worse", share(50)), record("slightly", share(50))]
    before += [record("gone", share(50)), record("failed", share(50)), record("stale", share(50))]
    after = [record("same", share(50)), record("worse", share(20)), record("slightly", share(49))]
    after += [record("new | <b>", share(50)), record("stale", share(10), data="other")]
    failed = replace(record("failed", share(50)), status="error", reason="x", facts=None)
    for folder, records in ((first, before), (second, [*after, failed])):
        for one in records:
            Store(folder).save(one)
    return first, second


def of(changes: list[Change], defense: str) -> Change:
    (found,) = [one for one in changes if one.cell.defense == defense]
    return found


def test_every_cell_is_compared_image_by_image(folders: tuple[Path, Path]) -> None:
    changes = compare_folders(*folders)
    assert len(changes) == 7
    worse, slightly, same = (of(changes, name) for name in ("worse", "slightly", "same"))
    assert (worse.before, worse.after) == (0.5, 0.2)
    assert worse.gap.value == pytest.approx(-0.3)
    assert worse.significant
    assert slightly.gap.value == pytest.approx(-0.01)
    assert not slightly.significant
    assert same.gap.value == 0
    assert not same.significant
    told = {name: of(changes, name).why for name in ("gone", "failed", "stale", "new | <b>")}
    assert told == {"gone": "gone", "failed": "error", "stale": "other data or weights", "new | <b>": "new"}


def test_a_drop_is_one_of_any_accuracy_or_of_the_number_itself(folders: tuple[Path, Path]) -> None:
    changes = compare_folders(*folders)
    assert {one.cell.defense for one in drops(changes, 0.5)} == {"worse", "slightly", "gone", "failed"}
    assert {one.cell.defense for one in drops(changes, 1)} == {"worse", "gone", "failed"}
    assert {one.cell.defense for one in drops(changes, 30)} == {"gone", "failed"}
    assert drops(compare_folders(folders[0], folders[0]), 0) == []


def test_a_drop_of_clean_accuracy_counts_too(tmp_path: Path) -> None:
    Store(tmp_path / "a").save(record("x", share(50)))
    Store(tmp_path / "b").save(record("x", share(50), clean=share(90)))
    (change,) = drops(compare_folders(tmp_path / "a", tmp_path / "b"), 5)
    assert change.clean.value == pytest.approx(-0.1)
    assert change.gap.value == 0


def test_the_table_for_a_pull_request_is_safe_and_says_what_is_significant(folders: tuple[Path, Path]) -> None:
    text = comparison_markdown(compare_folders(*folders), "main", "this <branch>")
    assert "<b>" not in text
    assert "<branch>" not in text
    (line,) = [one for one in text.splitlines() if "| worse |" in one]
    assert "−30.0 (" in line
    assert line.endswith("| yes |")
    assert "3 cells in both, 2 changed, 1 beyond" in text
    columns = {one.replace("\\|", "").count("|") for one in text.splitlines() if one.startswith("|")}
    assert columns == {12}


def test_folders_without_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="bench run"):
        compare_folders(tmp_path, tmp_path)
    with pytest.raises(InputError, match="bench run"):
        export(load_results(tmp_path), "csv")
    with pytest.raises(InputError, match="Did you mean 'json'"):
        export(load_results(tmp_path), "jsn")


def test_cells_whose_files_have_other_hashes_or_none_are_one(tmp_path: Path) -> None:
    def saved(folder: str, *datasets: str) -> Path:
        for dataset in datasets:
            one = record("same", share(50))
            Store(tmp_path / folder).save(replace(one, cell=replace(one.cell, dataset=dataset)))
        return tmp_path / folder

    old, new = saved("a", "folder:cats,train=0.5"), saved("b", "folder:cats@1a2b3c4d,train=0.5")
    (change,) = compare_folders(old, new)
    assert change.gap.n == N
    two = saved("c", "folder:cats@1a2b3c4d,train=0.5", "folder:cats@00000000,train=0.5")
    assert sorted(change.why for change in compare_folders(old, two)) == ["gone", "new", "new"]
    assert sorted(change.why for change in compare_folders(new, two)) == ["", "new"]


def test_every_format_has_a_row_for_each_cell(folders: tuple[Path, Path]) -> None:
    folder = folders[1]
    rows = list(csv.DictReader(io.StringIO(export(load_results(folder), "csv").decode())))
    assert {row["defense"]: row["attacked_accuracy"] for row in rows if row["n"] != "0"} == {
        "same": "0.5", "worse": "0.2", "slightly": "0.49", "new | <b>": "0.5", "stale": "0.1",
    }  # fmt: skip
    tree = json.loads(export(load_results(folder), "json"))
    assert {one["defense"] for one in tree} == {row["defense"] for row in rows}
    assert next(one for one in tree if one["defense"] == "failed")["attacked_accuracy"] is None
    table = export(load_results(folder), "markdown").decode()
    assert len(table.splitlines()) == len(rows) + 2
    assert "20.0 (13.3 to 28.9)" in table
    assert "<b>" not in table


def test_two_models_are_paired_cell_by_cell_and_named_in_each_line(folders: tuple[Path, Path]) -> None:
    folder = folders[0]
    for name in ("same", "worse"):
        one = record(name, share(70), weights="others")
        Store(folder).save(replace(one, cell=replace(one.cell, model="resnet20")))
    changes = compare_folders(folder, folder, "model=photos-cnn defense=same", "model=resnet20 defense=same")
    (change,) = changes
    assert (change.before, change.after, change.gap.n) == (0.5, 0.7, N)
    text = comparison_markdown(changes, "a", "b")
    assert "| cifar10 | photos-cnn → resnet20 | same | patch |" in text
    with pytest.raises(InputError, match="Expected one cell for each pair"):
        compare_folders(folder, folder, "model=photos-cnn defense=same", "tier=adaptive")
    with pytest.raises(InputError, match="model=vgg"):
        compare_folders(folder, folder, "model=photos-cnn", "model=vgg")
    with pytest.raises(InputError, match="key of a cell"):
        compare_folders(folder, folder, second_words="modell=vgg")


def test_a_latex_table_has_a_row_for_each_defense_and_says_what_its_numbers_share(folders: tuple[Path, Path]) -> None:
    outcomes = list(Store(folders[1]).outcomes())
    text = latex_tables(outcomes)
    assert text.count(r"\begin{table}") == text.count(r"\bottomrule") == 1
    assert text.count(r" \\") == len(outcomes) + 1
    assert r"new \textbar{} \textless{}b\textgreater{}" in text
    assert r"worse & 100.0 {\scriptsize (96.3--100.0)} & 20.0 {\scriptsize (13.3--28.9)} \\" in text
    assert "failed & -- & error" in text
    (caption,) = [line for line in text.splitlines() if line.startswith(r"\caption")]
    for words in ("cifar10", "photos-cnn", r"patch $\leq$ 5 \%", "effort: standard", "100 images"):
        assert words in caption


def test_rows_columns_and_measures_of_a_latex_table_can_be_chosen(folders: tuple[Path, Path]) -> None:
    outcomes = list(Store(folders[1]).outcomes())
    text = latex_tables(outcomes, ["w*", "same"], ["patch"], ["attacked_accuracy", "delta"])
    lines = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert [line.split(" ")[0] for line in lines[2:]] == ["worse", "same"]
    assert r"acc. & $\delta$ \\" in lines[1]
    assert "Attacked accuracy, delta in percent" in text
    assert latex_tables(outcomes, measures=list(MEASURES)).count("covers wrongly") > 0
    with pytest.raises(InputError, match="measure"):
        latex_tables(outcomes, measures=["acuracy"])
    with pytest.raises(InputError, match="none"):
        latex_tables(outcomes, ["nobody"])


def test_parquet_without_its_package_says_which_extra_brings_it(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"defense-bench\[parquet\]"):
        export(load_results(folders[1]), "parquet")


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_parquet_reads_back(folders: tuple[Path, Path], tmp_path: Path) -> None:
    import pandas

    frame = pandas.read_parquet(io.BytesIO(export(load_results(folders[1]), "parquet")))
    assert len(frame) == 6


def test_comparing_and_exporting_need_no_torch() -> None:
    code = "import sys, bench.records.compare, bench.records.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
