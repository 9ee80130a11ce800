"""Commands that are killed lose nothing; `python tools/kill_test.py` does the same at length."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .toys import tool


@pytest.mark.parametrize("command", ["run", "train", "report"])
def test_a_command_killed_twice_ends_with_the_files_of_an_undisturbed_one(command: str, tmp_path: Path) -> None:
    kill_test = tool("kill_test")
    assert kill_test.kill_again_and_again(command, 2, tmp_path, random.Random(0)) == []
