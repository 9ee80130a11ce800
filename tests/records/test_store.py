from __future__ import annotations

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.core.files import write_text
from bench.errors import InputError
from bench.records import store as storing
from bench.records.schema import Cell, Facts, Latency, Outcome, PluginRecord
from bench.records.store import Store, parse_outcome

CELL = Cell("photos", "photos-cnn", "patch:area=0.1", "lgs", "adaptive", seed=3)
FACTS = Facts([4, 9], [0, 1], [1, 0], [1, 1], [0, 1], [1, 0.5], [0, 0.3], [0, 0.3], [1, 0], noted={"pixels": [3, None]})
PLUGIN = PluginRecord("x", "X", "", {"clip": math.inf}, {})
OUTCOME = Outcome(
    CELL, "ok", "", 10, PLUGIN, PLUGIN, FACTS, warnings=["<b> | `x`"], seconds={"total": 1.5}, date="2026-01-02"
)


def as_old(tree: dict[str, Any]) -> dict[str, Any]:
    """As it was written before there were checksums."""
    return {key: value for key, value in tree.items() if key != "checksum"} | {"schema": 1}


def test_a_cell_prints_and_parses_back() -> None:
    odd = replace(CELL, dataset="folder:a b'c,resize=3", attack="x:y=1")
    assert Cell.parse(str(odd)) == odd
    with pytest.raises(InputError, match="key=value"):
        Cell.parse("dataset=photos nonsense=1")


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(OUTCOME)
    latency = Latency("photos", "photos-cnn", "lgs", {1: {"ratio": 1.5}}, "some CPU")
    store.save(latency)
    assert store.load(CELL) == OUTCOME
    assert list(store.outcomes()) == [OUTCOME]
    assert list(store.latencies()) == [latency]
    assert store.load(replace(CELL, seed=4)) is None


def test_a_fact_stands_on_one_line(tmp_path: Path) -> None:
    text = Store(tmp_path).save(OUTCOME).read_text()
    assert '"defended_attacked": [0,0.3],' in text
    assert '"defended_clean": [1,0.5],' in text
    assert '"bare_attacked": "01",' in text
    assert json.loads(text)["facts"]["index"] == [4, 9]


def test_yes_and_no_take_a_character_each_and_older_lists_are_read_as_well(tmp_path: Path) -> None:
    noted = replace(FACTS, index=[0, 1], noted={"through bpda": [1, None]})
    path = Store(tmp_path).save(replace(OUTCOME, facts=noted))
    tree = json.loads(path.read_text())
    assert tree["facts"]["noted"] == {"through bpda": "1-"}
    assert tree["facts"]["index"] == [0, 1]
    assert Store(tmp_path).load(CELL) == replace(OUTCOME, facts=noted)
    tree["facts"]["bare_clean"] = [1, 0]
    write_text(path, json.dumps(as_old(tree)))
    assert Store(tmp_path).load(CELL) == replace(OUTCOME, facts=replace(noted, bare_clean=[1, 0]))


@pytest.mark.parametrize("text", ["12", "0 1", "0-"])
def test_a_fact_with_other_characters_is_refused_by_its_name(text: str, tmp_path: Path) -> None:
    path = Store(tmp_path).save(OUTCOME)
    tree = json.loads(path.read_text())
    tree["facts"]["bare_clean"] = text
    write_text(path, json.dumps(as_old(tree)))
    with pytest.raises(InputError, match="bare_clean"):
        Store(tmp_path).load(CELL)


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "..", "/root", "C:\\x", "\x00", "x" * 500, "ä<script>"])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for cell in (replace(CELL, dataset=name), replace(CELL, attack=name), replace(CELL, model=name)):
        path = store.path(cell).resolve()
        assert path.is_relative_to(tmp_path.resolve() / "records")
        assert len(path.relative_to(tmp_path.resolve()).parts) == 4
        assert len(path.name) < 120


def test_cells_that_differ_lie_in_different_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cells = [CELL, replace(CELL, seed=4), replace(CELL, attack="patch:area=0,1"), replace(CELL, tier="oblivious")]
    assert len({store.path(cell) for cell in cells}) == len(cells)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"schema": 99}'])
def test_a_file_that_is_no_record_says_so_by_name(text: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.path(CELL)
    write_text(path, text)
    with pytest.raises(InputError, match=path.name):
        store.load(CELL)


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_one_record_is_found_by_some_of_its_words(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(OUTCOME)
    store.save(replace(OUTCOME, cell=replace(CELL, seed=4)))
    assert store.find("attack=patch:area=0.1 seed=4").cell.seed == 4
    with pytest.raises(InputError, match=r"there are 2\. Add words"):
        store.find("defense=lgs")
    with pytest.raises(InputError, match="there are 0"):
        store.find("defense=jpeg")
    with pytest.raises(InputError, match="Did you mean 'defense'"):
        store.find("defence=jpeg")


def test_a_record_that_the_disk_does_not_take_is_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "results")
    store.prepare()
    place = store.path(CELL).relative_to(tmp_path / "results")

    def full(path: Path, text: str) -> None:
        if path.is_relative_to(store.folder):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_text(path, text)

    monkeypatch.setattr(storing, "write_text", full)
    with pytest.raises(InputError, match=r"No space left on device. It is kept in .*cp -r"):
        store.save(OUTCOME)
    monkeypatch.undo()
    shelter = tmp_path / "cache" / "unsaved"
    assert parse_outcome((shelter / place).read_bytes(), "kept") == OUTCOME
    shutil.copytree(shelter, store.folder, dirs_exist_ok=True)
    assert store.load(CELL) == OUTCOME


def test_a_results_folder_that_vanishes_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path / "results")
    store.prepare()
    shutil.rmtree(store.folder)
    with pytest.raises(InputError, match="the folder is gone"):
        store.save(OUTCOME)
    assert not store.folder.exists()
    assert len(list((tmp_path / "cache" / "unsaved").rglob("*.json"))) == 1


def test_a_record_names_no_folder_of_a_machine(tmp_path: Path) -> None:
    plugin = PluginRecord("x", "X", "", {"generator": Path("/home/me/g.pt"), "all": ["/home/me/a/b.png"]}, {})
    failed = Outcome(CELL, "error", "No such file: '/home/me/my files/x.png'", attack=plugin)
    assert "/home" not in Store(tmp_path).save(failed).read_text()
    assert failed.attack
    assert failed.attack.parameters == {"generator": "g.pt", "all": ["b.png"]}


def test_a_text_that_looks_like_a_mark_of_the_file_stays_a_text(tmp_path: Path) -> None:
    odd = replace(OUTCOME, warnings=["@list 0@", '"'], defense=replace(PLUGIN, title="@list 1@"))
    Store(tmp_path).save(odd)
    assert Store(tmp_path).load(CELL) == odd


def test_a_dropped_record_takes_its_picture_along(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(OUTCOME)
    write_text(store.picture(CELL), "picture")
    store.drop(CELL)
    store.drop(CELL)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_words_with_open_quotes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No closing quotation"):
        Store(tmp_path).find("attack='patch")


def test_a_record_is_found_without_the_hashes_of_its_files(tmp_path: Path) -> None:
    cell = replace(CELL, dataset="folder:cats@1a2b3c4d,train=0.5", model="resnet20:weights=x.pt@00000000")
    Store(tmp_path).save(replace(OUTCOME, cell=cell))
    assert Store(tmp_path).find("dataset=folder:cats,train=0.5 model=resnet20:weights=x.pt").cell == cell
    assert Store(tmp_path).select("dataset=folder:cats@ffffffff,train=0.5") == []


def test_two_processes_do_not_work_on_a_locked_folder_at_once(tmp_path: Path) -> None:
    lines = "import sys", "from pathlib import Path", "from bench.records.store import Store"
    code = "\n".join([*lines, "with Store(Path(sys.argv[1])).locked(): print('in')"])
    with Store(tmp_path).locked():
        other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(3)
    assert other.communicate()[0] == "in\n"


def test_what_a_killed_process_left_half_written_is_deleted_when_it_is_old(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    old, new = (tmp_path / "records" / f".{name}.part" for name in ("old", "new"))
    for part in (old, new):
        part.write_text("{")
    os.utime(old, (0, 0))
    store.prepare()
    assert (old.exists(), new.exists()) == (False, True)
