"""Crashes, hangs, interrupts and kills: what goes wrong costs one cell, and nothing that was computed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

FAULTY = Path(__file__).parent.parent / "plugin" / "faulty.py"
SMALL = ["--images", "20", "--effort", "quick"]


def bench(*words: str, folder: Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    """Runs the command line in `folder` with a cache of its own."""
    environment = os.environ | {"BENCH_CACHE": str(folder / "cache"), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "bench", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def records(folder: Path) -> dict[str, Any]:
    """The records of cells below a results folder, without times."""
    outcomes = {}
    for path in sorted((folder / "records").rglob("*.json")):
        if not path.name.startswith("latency-"):
            tree = json.loads(path.read_text())
            tree.pop("seconds")
            tree.pop("date")
            outcomes[path.name] = tree
    return outcomes


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Attacks that fail, each in its own way, and one that does not; what hangs is run apart, with a time limit."""
    folder = tmp_path_factory.mktemp("faults")
    ways = ("raise", "nan", "shape", "range", "budget", "die", "kill", "memory")
    attacks = ",".join([*(f"faulty:way={way}" for way in ways), "fgsm"])
    words = ("run", "--plugin", str(FAULTY), "--defense", "none", "--tier", "oblivious", *SMALL)
    done = bench(*words, "--attack", attacks, folder=folder, check=False)
    bench(*words, "--attack", "faulty:way=hang", "--timeout", "3", folder=folder, check=False)
    outcomes = {one["cell"]["attack"].removeprefix("faulty:way="): one for one in records(folder / "results").values()}
    return done, outcomes


@pytest.mark.parametrize(
    ("way", "status", "reason"),
    [
        ("raise", "error", "RuntimeError: as asked (faulty.py:"),
        ("nan", "error", "holds NaN"),
        ("shape", "error", "shape"),
        ("range", "error", "outside [0, 1]"),
        ("budget", "error", "outside the budget (L∞ ≤ 0.01)"),
        ("die", "error", "exit code -11"),
        ("kill", "error", "killed"),
        ("memory", "out-of-memory", "MemoryError"),
        ("hang", "timeout", "--timeout"),
    ],
)
def test_a_failing_attack_is_a_status_with_its_reason_and_no_number(
    way: str, status: str, reason: str, faults: tuple[Any, dict[str, Any]]
) -> None:
    record = faults[1][way]
    assert record["status"] == status
    assert reason in record["reason"]
    assert record["facts"] is None


def test_the_other_cells_finish_and_the_exit_code_tells_of_failures(faults: tuple[Any, dict[str, Any]]) -> None:
    done, outcomes = faults
    assert outcomes["fgsm"]["status"] == "ok"
    assert done.returncode == 1
    assert "as asked" in done.stderr


def test_a_failing_defense_is_a_status_too(tmp_path: Path) -> None:
    done = bench(
        "run",
        "--plugin",
        str(FAULTY),
        "--attack",
        "fgsm",
        "--defense",
        "broken,none",
        "--tier",
        "oblivious",
        *SMALL,
        folder=tmp_path,
        check=False,
    )
    outcomes = {one["cell"]["defense"]: one["status"] for one in records(tmp_path / "results").values()}
    assert outcomes == {"broken": "error", "none": "ok"}
    assert done.returncode == 1


def test_a_broken_certificate_stops_the_run(tmp_path: Path) -> None:
    words = ("--attack", "ifgsm,fgsm", "--defense", "overconfident,jpeg", "--tier", "oblivious")
    done = bench("run", "--plugin", str(FAULTY), *words, *SMALL, folder=tmp_path, check=False)
    outcomes = {(one["cell"]["attack"], one["cell"]["defense"]): one for one in records(tmp_path / "results").values()}
    assert "CERTIFICATE BROKEN" in outcomes["ifgsm", "overconfident"]["reason"]
    assert outcomes["ifgsm", "overconfident"]["facts"] is None
    assert set(outcomes) == {("ifgsm", "none"), ("ifgsm", "overconfident")}, "the cells behind it are not computed"
    assert done.returncode == 1


def test_an_interrupt_keeps_what_was_done_and_says_how_to_go_on(tmp_path: Path) -> None:
    words = ["run", "--plugin", str(FAULTY), "--attack", "fgsm,faulty:way=hang", "--defense", "none", *SMALL]
    environment = os.environ | {"BENCH_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *words],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list((tmp_path / "results").rglob("fgsm*.json"))) < 2:
        assert process.poll() is None
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert "The same command resumes" in errors
    assert {one["status"] for one in records(tmp_path / "results").values()} == {"ok"}
