"""Several runs on one folder: they share the work, compute nothing twice, and take over what a dead one has left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench.core.locks import ProcessLock
from bench.engine.plan import CellTask
from bench.engine.queue import PAUSE, TaskQueue
from bench.engine.setting import Setting
from bench.engine.task import failure
from bench.records.schema import Cell
from bench.records.store import Store

COUNTED = Path(__file__).parent.parent / "plugin" / "counted.py"
ATTACKS = ",".join(f"counted:eps={eps}" for eps in (0.02, 0.05, 0.1))
WORDS = ["run", "--plugin", str(COUNTED), "--dataset", "photos:train=2,test=2,crop=16", "--images", "6"]
WORDS += ["--attack", ATTACKS, "--defense", "none,shifted", "--effort", "quick"]
CELLS = 3 * 2 * 2


def start(folder: Path) -> subprocess.Popen[str]:
    """A run on the folder, with the folder's cache, in a process group of its own."""
    with (folder / "stderr").open("a") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "bench", *WORDS],
            cwd=folder,
            env=os.environ | {"BENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
            start_new_session=True,
        )


def records(folder: Path) -> dict[str, Any]:
    """The records of cells, without times."""
    outcomes = {}
    for path in sorted((folder / "results" / "records").rglob("*.json")):
        if not path.name.startswith("latency-"):
            tree = json.loads(path.read_text())
            outcomes[path.name] = {
                key: value for key, value in tree.items() if key not in ("seconds", "date", "training", "checksum")
            }
    return outcomes


def work_done(folder: Path) -> Counter[str]:
    """How often each piece of work was done."""
    return Counter(line.partition(" ")[2] for line in (folder / "log").read_text().splitlines())


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run alone."""
    folder = tmp_path_factory.mktemp("single")
    assert start(folder).wait() == 0, (folder / "stderr").read_text()
    return folder


@pytest.mark.parametrize("runs", [2, 4])
def test_runs_at_once_compute_nothing_twice_and_end_with_the_records_of_one(
    runs: int, single: Path, tmp_path: Path
) -> None:
    processes = [start(tmp_path) for _ in range(runs)]
    assert [process.wait() for process in processes] == [0] * runs, (tmp_path / "stderr").read_text()
    assert len(records(tmp_path)) == CELLS
    assert records(tmp_path) == records(single)
    assert work_done(tmp_path) == work_done(single)
    assert set(work_done(tmp_path).values()) == {1}
    assert not list((tmp_path / "results" / ".claims").iterdir())


def test_a_run_leaves_out_what_another_has_claimed_and_takes_its_record(tmp_path: Path) -> None:
    setting, cells = Setting("d", "m"), [Cell("d", "m", name, "none", "oblivious") for name in ("fgsm", "pgd")]
    tasks = [CellTask(cell, setting) for cell in cells]
    first, second = (TaskQueue(tasks, Store(tmp_path)) for _ in range(2))
    assert first.next(None, []) == tasks[0]
    assert second.next(None, []) == tasks[1], "it begins a column of its own"
    assert second.next(tasks[1], [tasks[1]]) is None
    done = failure(tasks[0], "error", "as asked")
    first.finish(done)
    time.sleep(PAUSE)
    assert second.next(tasks[1], [tasks[1]]) == done
    assert not second
    first.close()
    second.close()
    assert not list((tmp_path / ".claims").iterdir())


def test_the_cells_of_a_run_that_is_killed_are_taken_over(single: Path, tmp_path: Path) -> None:
    victim = start(tmp_path)
    while not (tmp_path / "log").exists() or "crafted" not in (tmp_path / "log").read_text():
        assert victim.poll() is None, (tmp_path / "stderr").read_text()
        time.sleep(0.02)
    other = start(tmp_path)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert other.wait() == 0, (tmp_path / "stderr").read_text()
    assert records(tmp_path) == records(single)


def test_the_lock_of_a_process_that_is_killed_is_free(tmp_path: Path) -> None:
    lock = ProcessLock(tmp_path / "lock")
    hold = "import sys, time; from pathlib import Path; from bench.core.locks import ProcessLock as Lock\n"
    hold += "lock = Lock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); time.sleep(3600)"
    command = [sys.executable, "-c", hold, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        assert not lock.acquire(wait=False)
        holder.kill()
    assert lock.acquire(wait=False)
    lock.release()
    assert not (tmp_path / "lock").exists()


def test_a_folder_without_locks_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with ProcessLock(tmp_path / "file" / "lock") as lock:
        assert lock.acquire(wait=False)
