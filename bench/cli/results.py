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
    figures: Annotated[bool, typer.Option("--figures", help="Also write each chart as PDF and PNG.")] = False,
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
    from bench.report import stale_files, write_figures, write_report

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
        _say_written(write_figures(results) if figures else [])


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
    before: Annotated[Path, typer.Argument(help="A results folder.")],
    after: Annotated[Path | None, typer.Argument(help="A results folder; by default the same one.")] = None,
    first: Annotated[str, typer.Option(help="Words of the cells before, such as 'model=resnet20'.")] = "",
    second: Annotated[str, typer.Option(help="Words of the cells after, such as 'model=resnet50'.")] = "",
    max_drop: Annotated[
        float | None, typer.Option(help="Fail if an accuracy falls by more than this many points.")
    ] = None,
) -> None:
    """Compare two results folders, two checkpoints or two models cell by cell, with paired intervals, as Markdown.

    Examples: `bench compare results ../main/results --max-drop 2`,
    `bench compare results --first model=resnet20 --second model=resnet50`

    Cells are paired by all that the words of --first and --second do not name.
    """
    from bench.records.compare import compare_folders, comparison_markdown, drops

    after = after or before
    changes = compare_folders(before, after, first, second)
    names = [f"{folder} {words}".strip() for folder, words in ((before, first), (after, second))]
    typer.echo(comparison_markdown(changes, *names).encode(), nl=False)
    fallen = drops(changes, max_drop) if max_drop is not None else []
    for change in fallen:
        typer.echo(f"fell by more than {max_drop:g} points, or lost its number: {change.cell}", err=True)
    sys.exit(1 if fallen else 0)


def export_command(
    format: Annotated[str, typer.Option(help="csv, parquet, latex, markdown or json.")] = "csv",
    out: Annotated[Path | None, typer.Option(help="A file; the default prints.")] = None,
    cells: Annotated[str, typer.Option(help="For latex: which cells, in the words of 'bench show'.")] = "",
    rows: Annotated[str, typer.Option(help="For latex: the defenses, with commas and *; all by default.")] = "",
    columns: Annotated[str, typer.Option(help="For latex: the attacks, with commas and *; all by default.")] = "",
    measures: Annotated[str, typer.Option(help="For latex: what to print, with commas.")] = "attacked_accuracy",
    to: Annotated[str | None, typer.Option(help="A tracker in place of a format: mlflow or wandb.")] = None,
    project: Annotated[str, typer.Option(help="For --to: MLflow's experiment, or the project.")] = "defense-bench",
    results: ResultsOption = Path("results"),
) -> None:
    """Write all records as one table for other programs, or as tables of defenses and attacks for a paper.

    Examples: `bench export --format parquet --out results.parquet`,
    `bench export --to mlflow`,
    `bench export --format latex --cells dataset=photos --columns "patch*" --measures attacked_accuracy,delta`
    """
    from bench.records.export import export
    from bench.report.frame import load_results

    if to is not None:
        from bench.records.trackers import export_to

        typer.echo(f"wrote {export_to(load_results(results), to, project)} runs to {to}")
        return
    if format == "latex":
        from bench.plugins.specs import split_specs
        from bench.records.latex import latex_tables
        from bench.records.store import Store

        outcomes = Store(results).select(cells)
        content = latex_tables(outcomes, split_specs(rows), split_specs(columns), measures.split(",")).encode()
    else:
        content = export(load_results(results), format)
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
