"""What a shell and other programs ask of the command line: its version, completion, lists as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest


def call(*words: str, **variables: str) -> str:
    command = [sys.executable, "-m", "bench", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | variables)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_version_is_that_of_the_package() -> None:
    assert call("--version") == version("defense-bench") + "\n"


@pytest.mark.parametrize("what", ["defenses", "models", "everything"])
def test_lists_are_json_with_the_names_of_the_printed_lists(what: str) -> None:
    sections = json.loads(call("list", what, "--json"))
    printed = call("list", what)
    assert list(sections) == [line[:-1] for line in printed.splitlines() if line and line[0] != " "]
    for names in sections.values():
        assert names
        for name, summary in names.items():
            assert f"  {name} " in printed
            assert summary in printed


def test_a_shell_completes_commands_and_options() -> None:
    bash = {"_BENCH_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    code = "import sys; sys.argv = ['bench']; from bench.cli.main import main; main()"

    def complete(words: str, place: str) -> list[str]:
        variables = os.environ | bash | {"COMP_WORDS": words, "COMP_CWORD": place}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=variables)
        return done.stdout.split()

    assert complete("bench ver", "1") == ["verify"]
    assert "--defense" in complete("bench run --def", "2")
