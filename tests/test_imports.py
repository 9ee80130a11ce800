"""Who may import whom: the table of docs/architecture.md, held against the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"attacks": ROOT / "attacks", "defenses": ROOT / "defenses"}
WITHOUT_TORCH = ("errors", "plugins.registry", "plugins.specs", "submit.bundle", "cli.main", "cli.listing")


def rule() -> dict[str, set[str]]:
    """For each wing (or file of the root) the wings and files that it may import."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| `")]
    allowed: dict[str, set[str]] = {}
    for wings, _, may_import in rows:
        names = _quoted(wings)
        others = set(allowed) if may_import.strip() == "all above" else _quoted(may_import)
        own = names if all(name.endswith(".py") for name in names) else set()
        allowed |= {name: others | own for name in names}
    return allowed


def _quoted(cell: str) -> set[str]:
    return set(cell.split("`")[1::2])


def modules() -> dict[str, Path]:
    """The name of every module of the project, with its file."""
    folders = {"bench": ROOT / "bench"} | {f"bench.{name}": folder for name, folder in FOLDERS.items()}
    return {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]).removesuffix(".__init__"): path
        for package, folder in folders.items()
        for path in sorted(folder.rglob("*.py"))
    }


MODULES = modules()
RULE = rule()


def imports(module: str) -> set[str]:
    """The modules of the project that a module imports, anywhere in its code."""
    path, names = MODULES[module], set()
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names |= {f"{base}.{alias.name}" if f"{base}.{alias.name}" in MODULES else base for alias in node.names}
    return {name for name in names if name.split(".")[0] == "bench"} - {module}


def wing(module: str) -> str:
    """The row's name for a module: its wing, or its file where it is in the root."""
    parts = module.split(".")
    if len(parts) == 1:
        return "__init__.py"
    return parts[1] if len(parts) > 2 or MODULES[module].name == "__init__.py" else f"{parts[1]}.py"


def test_the_rule_names_every_wing_and_every_file_of_the_root() -> None:
    assert {wing(module) for module in MODULES} == set(RULE)


@pytest.mark.parametrize("importer", sorted(RULE))
def test_a_wing_imports_only_what_the_rule_allows(importer: str) -> None:
    wrong = [
        f"{module} -> {name}"
        for module in MODULES
        if wing(module) == importer
        for name in imports(module)
        if wing(name) not in RULE[importer] | {importer} and f"{wing(name)}/{MODULES[name].name}" not in RULE[importer]
    ]
    assert wrong == []


def test_everything_that_is_imported_exists() -> None:
    assert {name for module in MODULES for name in imports(module)} <= set(MODULES)


def test_there_are_no_import_cycles() -> None:
    TopologicalSorter({module: imports(module) for module in MODULES}).prepare()


def test_no_public_name_is_defined_twice() -> None:
    places = defaultdict(list)
    for module, path in MODULES.items():
        if wing(module) in FOLDERS:
            continue
        for node in ast.parse(path.read_text()).body:
            for name in _defined(node):
                if not name.startswith("_"):
                    places[name].append(module)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def test_tables_and_lists_are_made_without_torch() -> None:
    whole = [module for module in MODULES if wing(module) in ("records", "report", "papers")]
    names = [*whole, *(f"bench.{name}" for name in WITHOUT_TORCH)]
    code = f"import sys; [__import__(name) for name in {names!r}]; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_main_function_reads_as_the_experiment() -> None:
    tree = ast.parse((ROOT / "bench" / "engine" / "run.py").read_text())
    (main,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "evaluate"]
    assert main.end_lineno is not None
    assert main.end_lineno - main.lineno < 40
