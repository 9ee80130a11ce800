"""Who may import whom (the rule of the house), read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WITHOUT_TORCH = (
    "records.metrics",
    "records.store",
    "records.schema",
    "plugins.registry",
    "plugins.specs",
    "cli.listing",
    "errors",
    "cli.main",
    "records.compare",
    "records.export",
    "papers.write",
)


def imports(path: Path, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
            if node.module == "bench":
                found |= {f"bench.{alias.name}" for alias in node.names}
    return found


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize(
    "path", files("attacks") + files("defenses"), ids=lambda path: f"{path.parent.name}/{path.name}"
)
def test_plugins_import_the_contracts_and_their_siblings_only(path: Path) -> None:
    allowed = {"bench.contracts", "bench.memory"}
    allowed |= {
        "bench.models",
        "bench.training",
        "bench.augment",
        "bench.weights_file",
    }  # how networks are trained and loaded
    if path.name.startswith("train_"):  # a command beside a plugin; no plugin imports it
        allowed |= {"bench.data.load", "bench.data.folders", "bench.errors"}
    assert {one for one in imports(path) if one.split(".")[0] == "bench"} <= allowed
    assert not {one for one in imports(path) if one.startswith("..")}


@pytest.mark.parametrize("path", files("bench"), ids=lambda path: path.name)
def test_the_engine_imports_no_plugin_and_nobody_imports_the_command_line(path: Path) -> None:
    found = imports(path)
    assert not {one for one in found if one.startswith(("bench.attacks", "bench.defenses", "attacks", "defenses"))}
    assert (
        not {one for one in found if one.startswith("bench.cli")}
        or path.parent.name == "cli"
        or path.name == "__main__.py"
    )


def test_tables_and_lists_are_made_without_torch() -> None:
    modules = [f"bench.{name}" for name in WITHOUT_TORCH] + ["bench.report"]
    code = f"import sys; [__import__(one) for one in {modules!r}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_main_function_reads_as_the_experiment() -> None:
    tree = ast.parse((ROOT / "bench" / "engine" / "run.py").read_text())
    (main,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "evaluate"]
    assert main.end_lineno is not None
    assert main.end_lineno - main.lineno < 40
