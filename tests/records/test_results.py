"""The results in this repository are what `bench report` and `bench tables` make of their records today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("command", ["report", "tables"])
def test_the_committed_results_are_current(command: str) -> None:
    words = [sys.executable, "-m", "bench", command, "--check", "--results", str(ROOT / "results")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_committed_results_are_small() -> None:
    folders = (folder for folder in (ROOT / "results").iterdir() if folder.name != "site")  # git ignores it
    files = (file for folder in folders for file in (folder, *folder.rglob("*")) if file.is_file())
    assert sum(file.stat().st_size for file in files) < 12e6
