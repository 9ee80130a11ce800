"""What there is to choose from, read from the source: `bench list` imports nothing that computes."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Annotated, Final

import typer

from bench.benchmarks.named import benchmark_names, load_benchmark
from bench.cli.options import PluginsOption, add_plugins
from bench.errors import InputError
from bench.plugins.registry import Kind, addresses, first_line
from bench.plugins.specs import check_known

SECTIONS: Final = ("attacks", "defenses", "datasets", "models", "benchmarks")
_PACKAGE = Path(__file__).parent.parent
_TABLES = {"datasets": ("data/load.py", "DATASETS"), "models": ("models/zoo.py", "MODELS")}


def list_command(
    what: Annotated[
        str, typer.Argument(help="attacks, defenses, datasets, models, benchmarks, or everything.")
    ] = "everything",
    markdown: Annotated[bool, typer.Option("--markdown", help="The full reference of attacks or defenses.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON: names and what they are, by section.")] = False,
    plugin: PluginsOption = None,
) -> None:
    """List the attacks, defenses, data sets, models and benchmarks.

    Examples: `bench list defenses`, `bench list attacks --markdown`
    """
    add_plugins(plugin)
    if as_json:
        sections = {name: _summaries(name) for name in _sections(what)}
        typer.echo(json.dumps(sections, indent=1, ensure_ascii=False).encode(), nl=True)
        return
    if not markdown:
        typer.echo(overview(what))
        return
    if what not in ("attacks", "defenses"):
        raise InputError(f"Expected attacks or defenses with --markdown, but got {what!r}.")
    from bench.cli.reference import reference_page

    typer.echo(reference_page("attack" if what == "attacks" else "defense").encode(), nl=False)


def overview(what: str) -> str:
    """One section, or `everything`; raises InputError for another word."""
    return "\n\n".join(map(_section, _sections(what)))


def _sections(what: str) -> list[str]:
    if what != "everything":
        check_known(what, SECTIONS, "list")
    return [name for name in SECTIONS if what in (name, "everything")]


def _summaries(section: str) -> dict[str, str]:
    """Name -> what it is."""
    if section == "benchmarks":
        return {key: load_benchmark(key).about.title for key in benchmark_names()}
    if section in _TABLES:
        return loader_summaries(*_TABLES[section])
    return plugin_summaries("attack" if section == "attacks" else "defense")


def _section(name: str) -> str:
    summaries = _summaries(name)
    width = max(map(len, summaries))
    return "\n".join([f"{name}:", *(f"  {key:<{width}}  {summary}" for key, summary in summaries.items())])


def plugin_summaries(kind: Kind) -> dict[str, str]:
    """Name -> the first line of its docstring, in the order of the names."""
    return {name: first_line(address) for name, address in sorted(addresses(kind).items())}


def loader_summaries(file: str, table: str) -> dict[str, str]:
    """Name -> the first line of its function's docstring, for a dict of functions in a file of this package."""
    tree = _parsed(file)
    (functions,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table and isinstance(node.value, ast.Dict)
    ]
    files = [file] + [
        f"{node.module.removeprefix('bench.').replace('.', '/')}.py"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bench.")
    ]
    summaries = {
        node.name: (ast.get_docstring(node) or "").split("\n")[0].replace("`", "")
        for path in reversed(files)
        for node in _parsed(path).body
        if isinstance(node, ast.FunctionDef)
    }
    return {
        ast.literal_eval(key): summaries[ast.unparse(value)]
        for key, value in zip(functions.keys, functions.values, strict=True)
        if key is not None
    }


def _parsed(file: str) -> ast.Module:
    return ast.parse((_PACKAGE / file).read_bytes())
