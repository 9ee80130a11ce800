"""Commands that turn records into tables, pages, comparisons and other formats."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import DeviceOption, PluginsOption, ResultsOption, WeightsOption, add_plugins, checked_device
from bench.errors import InputError

CheckOption = Annotated[
    bool, typer.Option("--check", help="Write nothing; fail if what the records give differs from the files.")
]


def report_command(
    results: ResultsOption = Path("results"),
    check: CheckOption = False,
    pictures: Annotated[int, typer.Option(min=0, help="First make pictures of this many images of each cell.")] = 0,
    cells: Annotated[str, typer.Option(help="The cells to picture, in the words of 'bench show'.")] = "",
    dataset: Annotated[str | None, typer.Option(help="The cells' data set, if it is a folder.")] = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
    plugin: PluginsOption = None,
) -> None:
    """Make the tables and the site from the records.

    Examples: `bench report`, `bench report --check`, `bench report --pictures 4 --cells "attack=patch tier=adaptive"`

    Pictures need the cells' images; images that have left the cache are computed again.
    """
    from bench.report import stale_files, write_report

    if not (results / "records").is_dir():
        raise InputError(f"Expected records in {results / 'records'}, but there is no such folder. First: bench run.")
    if pictures and not check:
        from bench.engine.pictures import write_sheets
        from bench.records.store import Store

        add_plugins(plugin)
        for line in write_sheets(Store(results), cells, pictures, dataset, weights, checked_device(device)):
            typer.echo(line)
    if check:
        _end_if_stale(stale_files(results))
    else:
        _say_written(write_report(results))


def tables_command(results: ResultsOption = Path("results"), check: CheckOption = False) -> None:
    """Make the papers' tables, with our numbers beside theirs.

    Example: `bench tables --check`
    """
    from bench.papers.write import stale_tables, write_tables
    from bench.report import red_flags

    if check:
        _end_if_stale(stale_tables(results, red_flags))
    else:
        _say_written(write_tables(results, red_flags))


def compare_command(
    first: Annotated[Path, typer.Argument(help="A results folder: before.")],
    second: Annotated[Path, typer.Argument(help="A results folder: after.")],
    max_drop: Annotated[
        float | None, typer.Option(help="Fail if an accuracy falls by more than this many points.")
    ] = None,
) -> None:
    """Compare two results folders cell by cell, with paired intervals, as Markdown.

    Example: `bench compare results ../main/results --max-drop 2`
    """
    from bench.records.compare import compare_folders, comparison_markdown, drops

    changes = compare_folders(first, second)
    typer.echo(comparison_markdown(changes, str(first), str(second)).encode(), nl=False)
    fallen = drops(changes, max_drop) if max_drop is not None else []
    for change in fallen:
        typer.echo(f"fell by more than {max_drop:g} points, or lost its number: {change.cell}", err=True)
    sys.exit(1 if fallen else 0)


def export_command(
    format: Annotated[str, typer.Option(help="csv, parquet, latex, markdown or json.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="A file; the default prints.")] = None,
    results: ResultsOption = Path("results"),
) -> None:
    """Write all records as one table for other programs.

    Example: `bench export --format parquet --out results.parquet`
    """
    from bench.records.export import export

    content = export(results, format)
    if out is not None:
        out.write_bytes(content)
        typer.echo(f"wrote {out}")
    elif format == "parquet":
        raise InputError("Expected --out FILE with --format parquet: it is not text.")
    else:
        typer.echo(content, nl=False)


def _say_written(paths: list[Path]) -> None:
    for path in paths:
        typer.echo(f"wrote {path}")


def _end_if_stale(paths: list[Path]) -> None:
    for path in paths:
        typer.echo(f"not current: {path}", err=True)
    sys.exit(1 if paths else 0)
