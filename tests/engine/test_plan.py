"""What is refused or left out before anything is computed, and timings that fail."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.contracts import InputError
from bench.engine.engines import Local
from bench.engine.inputs import cell_fingerprints
from bench.engine.matrix import compute
from bench.engine.plan import CellTask, LatencyTask, Plan, Retry, plan
from bench.engine.queue import TaskQueue
from bench.engine.setting import Setting
from bench.engine.task import failure
from bench.engine.testbed import testbed_of
from bench.engine.workers import execute, load_plugins
from bench.plugins import registry
from bench.plugins.registry import make_attack, make_defense
from bench.records.schema import TIERS, Cell, Latency
from bench.records.store import Store
from bench.report import write_report

FAULTY = Path(__file__).parent.parent / "plugin" / "faulty.py"


@pytest.fixture(autouse=True)
def _loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_from_files", dict(registry._from_files))


@pytest.fixture
def oblong(tmp_path: Path) -> Setting:
    """Two classes of four images of 24×40, half of them to learn from."""
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.full((24, 40, 3), 10 * number + (100 if name == "b" else 0), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return Setting(f"folder:{tmp_path / 'images'},train=0.5", "mnist-cnn")


def planned(setting: Setting, tmp_path: Path, attacks: str = "fgsm", defenses: str = "none") -> Plan:
    return plan(setting, attacks, defenses, ("oblivious",), [0], "quick", Store(tmp_path / "results"))


def test_all_leaves_out_what_does_not_fit_with_its_reason_and_a_name_is_refused(
    oblong: Setting, tmp_path: Path
) -> None:
    result = planned(oblong, tmp_path, defenses="all")
    defenses = {task.cell.defense for task in result.tasks if isinstance(task, CellTask)}
    assert {"none", "jpeg"} <= defenses
    assert "volumization" not in defenses
    (reason,) = [line for line in result.left_out if "volumization" in line]
    assert "Expected slices that divide the image (24×40)" in reason
    with pytest.raises(InputError, match="volumization does not fit"):
        planned(oblong, tmp_path, defenses="volumization")


def test_what_learns_is_refused_without_training_images_and_all_leaves_it_out(oblong: Setting, tmp_path: Path) -> None:
    without = Setting(oblong.dataset.removesuffix(",train=0.5"), oblong.model)
    for attacks, defenses in (("patch", "none"), ("fgsm", "squeeze"), ("fgsm", "jpeg+squeeze")):
        with pytest.raises(InputError, match=r"learns from training images, but .* has none"):
            planned(without, tmp_path, attacks, defenses)
    result = planned(without, tmp_path, "all", "all")
    cells = [task.cell for task in result.tasks if isinstance(task, CellTask)]
    assert not {cell.attack for cell in cells} & {"patch", "tnt"}
    assert not {cell.defense for cell in cells} & {"squeeze", "adversarial-training"}
    assert any("squeeze learns from training images" in line for line in result.left_out)


def test_only_universal_attacks_by_one_who_knows_the_defense_depend_on_how_one_artifact_is_chosen() -> None:
    testbed = testbed_of(Setting("photos", "photos-cnn", images=4))
    dependent = [
        (attack, tier)
        for attack, tier in product(("patch", "lavan"), TIERS)
        if "artifact" in cell_fingerprints(make_attack(attack), make_defense("jpeg"), testbed, tier)
    ]
    assert dependent == [("patch", "adaptive")]


def test_a_timing_that_fails_is_a_record_of_its_own_and_is_tried_again(tmp_path: Path) -> None:
    load_plugins([FAULTY])
    setting, store = Setting("photos", "photos-cnn", images=4), Store(tmp_path / "results")
    result = plan(setting, "fgsm", "broken", ("oblivious",), [0], "quick", store)
    list(compute(result, store, [FAULTY], Local(0), None, lambda task, share, doing: None))
    broken, fine = sorted(store.latencies(), key=lambda record: record.defense)
    assert (broken.defense, broken.status, broken.batches) == ("broken", "error", {})
    assert "nothing to protect with" in broken.reason
    assert (fine.defense, fine.status) == ("none", "ok")
    again = plan(setting, "fgsm", "broken", ("oblivious",), [0], "quick", store)
    assert [task.defense for task in again.tasks if isinstance(task, LatencyTask)] == ["broken"]
    assert [record.defense for record in again.latencies] == ["none"]
    write_report(store.folder)


def test_the_record_of_a_timing_from_before_it_could_fail_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.save(Latency("photos", "photos-cnn", "jpeg", {1: {"bare": 1.0, "defended": 2.0}}, "m"))
    assert '"status": "ok"' in path.read_text()
    (record,) = Store(tmp_path).latencies()
    assert record.reason == ""


def test_the_time_of_a_task_begins_when_its_process_is_ready(tmp_path: Path) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import multiprocessing, time\n"
        "if multiprocessing.parent_process(): time.sleep(30)\n" + FAULTY.read_text().partition("annotations\n")[2]
    )
    load_plugins([slow])
    cell = Cell("photos", "photos-cnn", "fgsm", "none", "oblivious", effort="quick", images=4)
    tasks = [CellTask(cell, Setting("photos", "photos-cnn", images=4))]
    (done,) = execute(TaskQueue(tasks), [slow], 1, 30, lambda task, share, doing: None)
    assert done.record.status == "ok", done.record.reason
    assert multiprocessing.parent_process() is None
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("retry", "again"),
    [("none", set()), ("failed", {"error"}), ("all", {"error", "not-applicable"})],
)
def test_records_without_numbers_are_computed_again_as_asked_unless_something_changed(
    retry: Retry, again: set[str], tmp_path: Path
) -> None:
    store = Store(tmp_path / "results")
    setting = Setting("photos", "photos-cnn", images=4)
    both = plan(setting, "fgsm,ifgsm", "none", ("oblivious",), [0], "quick", store)
    tasks = [task for task in both.tasks if isinstance(task, CellTask)]
    for task, status in zip(tasks, ("error", "not-applicable"), strict=True):
        store.save(failure(task, status, "a reason").record)  # type: ignore[arg-type]  # mypy sees a str

    def planned_again() -> tuple[set[str], set[str]]:
        result = plan(setting, "fgsm,ifgsm", "none", ("oblivious",), [0], "quick", store, retry=retry)
        kept = {record.status for record in result.done}
        return kept, {store.load(task.cell).status for task in result.tasks if isinstance(task, CellTask)}  # type: ignore[union-attr]  # both are there

    assert planned_again() == ({"error", "not-applicable"} - again, again)
    for task, status in zip(tasks, ("error", "not-applicable"), strict=True):
        other = replace(task, inputs=(("attack", "other code"),))
        store.save(failure(other, status, "a reason").record)  # type: ignore[arg-type]  # as above
    assert planned_again() == (set(), {"error", "not-applicable"})
