"""The commands that tell of results: tables, the site, differences, other formats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import Device, Plugins, Results, Weights, add_plugins, checked_device
from bench.errors import InputError

app = typer.Typer()


@app.command()
def report(
    results: Results = Path("results"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where tables are not current.")] = False,
    pictures: Annotated[int, typer.Option(min=0, help="Make pictures first: so many images of each cell.")] = 0,
    cells: Annotated[str, typer.Option(help="Of which cells: words as 'bench show' takes them.")] = "",
    dataset: Annotated[str | None, typer.Option(help="Where the cells' data set lies, if it is a folder.")] = None,
    weights: Weights = None,
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Make the tables and the site from the records.

    Examples: `bench report`, `bench report --check`, `bench report --pictures 4 --cells "attack=patch tier=adaptive"`

    Pictures need the cells' images: what is no longer in the cache is computed again.
    """
    from bench.report import stale, write_report

    if not (results / "records").is_dir():
        raise InputError(f"Expected records in {results / 'records'}, but there is no such folder. First: bench run.")
    if pictures and not check:
        from bench.engine import pictures as showing
        from bench.records.store import Store

        add_plugins(plugin)
        for line in showing.sheets(Store(results), cells, pictures, dataset, weights, checked_device(device)):
            typer.echo(line)
    if not check:
        for path in write_report(results):
            typer.echo(f"wrote {path}")
        return
    old = stale(results)
    for path in old:
        typer.echo(f"not current: {path}", err=True)
    sys.exit(1 if old else 0)


@app.command()
def tables(
    results: Results = Path("results"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where tables are not current.")] = False,
) -> None:
    """Make the papers' tables with our numbers beside theirs.

    Example: `bench tables --check`
    """
    from bench.papers.write import stale_tables, write_tables

    if not check:
        for path in write_tables(results):
            typer.echo(f"wrote {path}")
        return
    old = stale_tables(results)
    for path in old:
        typer.echo(f"not current: {path}", err=True)
    sys.exit(1 if old else 0)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A results folder: before.")],
    second: Annotated[Path, typer.Argument(help="A results folder: after.")],
    max_drop: Annotated[
        float | None, typer.Option(help="Fail where an accuracy fell by more points than that.")
    ] = None,
) -> None:
    """Compare two results folders cell by cell, with paired intervals, as Markdown.

    Example: `bench compare results ../main/results --max-drop 2`
    """
    from bench.records import compare as comparing

    changes = comparing.compare(first, second)
    typer.echo(comparing.markdown(changes, str(first), str(second)), nl=False)
    fallen = comparing.drops(changes, max_drop) if max_drop is not None else []
    for one in fallen:
        typer.echo(f"fell by more than {max_drop:g} points, or lost its number: {one.cell}", err=True)
    sys.exit(1 if fallen else 0)


@app.command()
def export(
    format: Annotated[str, typer.Option(help="csv, parquet, latex, markdown or json.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="A file; by default it is printed.")] = None,
    results: Results = Path("results"),
) -> None:
    """Write all records as one table for other programs.

    Example: `bench export --format parquet --out results.parquet`
    """
    from bench.records import export as exporting

    content = exporting.export(results, format)
    if out is not None:
        out.write_bytes(content)
        typer.echo(f"wrote {out}")
    elif format == "parquet":
        raise InputError("Expected --out FILE with --format parquet: it is no text.")
    else:
        typer.echo(content.decode(), nl=False)
