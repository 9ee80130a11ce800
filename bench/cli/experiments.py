"""Commands that compute cells, and one that shows a cell."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.experiment_files import (
    BenchmarkOption,
    ExperimentArgument,
    check_benchmark,
    describe_experiment,
    experiment_of,
    write_experiment,
)
from bench.cli.options import (
    AttacksOption,
    DefensesOption,
    DeviceOption,
    InputOptions,
    MatrixOptions,
    PluginsOption,
    ResultsOption,
    SeedsOption,
    WeightsOption,
    add_plugins,
    checked_device,
    seeds_of,
    time_of,
    with_options,
)
from bench.errors import InputError


@with_options
def run_command(
    *,
    context: typer.Context,
    experiment: ExperimentArgument = None,
    benchmark: BenchmarkOption = None,
    attack: AttacksOption = "all",
    defense: DefensesOption = "all",
    options: MatrixOptions,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images attacked at once; an interrupted cell resumes after whole batches."),
    ] = None,
    time_limit: Annotated[
        str | None, typer.Option(help="Start no cell that would not finish within this time, such as 2h or 1h30m.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Write a log into results/logs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what there is to do and how long it takes.")] = False,
) -> None:
    """Compute the cells that are missing, and print their table.

    Examples:

    `bench run --attack patch --defense lgs`

    `bench run --attack fgsm,patch:area=0.1 --defense none,lgs,jpeg:quality=30 --images 100`

    `bench run --dataset folder:PATH,train=0.3 --model resnet20 --weights FILE`

    `bench run experiment.toml --workers 2`

    `bench run --benchmark photos-patch --defense lgs`

    Cells that were computed before are not computed again; an interrupted run resumes where it stopped.
    """
    from bench.cli.progress import print_forecast, run_plan
    from bench.records.store import Store

    add_plugins(options.plugin)
    store, limit = Store(options.results), time_of(time_limit)
    if limit and options.engine != "local":
        raise InputError("--time-limit is for --engine local; jobs of a cluster have --job-minutes.")
    if benchmark:
        check_benchmark(context, benchmark, options.settings())
    with experiment_of(context) as file:
        plan = options.plan(attack, defense, store, batch_size)
    engine = options.make_engine(options.device)
    if dry_run:
        print_forecast(plan, store, engine)
        return
    if file:
        write_experiment(context, file, plan.cells, options.results)
    sys.exit(run_plan(plan, store, options.plugin or [], engine, options.timeout, limit, verbose))


@with_options
def curve_command(
    *,
    attack: AttacksOption,
    over: Annotated[
        str | None, typer.Option(help="NAME=VALUE,VALUE,…: a parameter of the attacks or defenses.")
    ] = None,
    roc: Annotated[bool, typer.Option("--roc", help="Measure ROC curves of the cells.")] = False,
    defense: DefensesOption = "none",
    options: MatrixOptions,
) -> None:
    """Compute cells along one parameter and draw accuracy, δ and β over it; or measure ROC curves.

    Examples:

    `bench curve --attack patch --over area=0.01,0.02,0.05,0.1,0.25 --defense lgs`

    `bench curve --attack fgsm --over quality=10,30,75 --defense jpeg`

    `bench curve --attack pixel --defense annnet --roc`

    The cells are those of `bench run`; the site shows the curves, with SVG and CSV files beside them.
    """
    from bench.cli.progress import run_plan
    from bench.engine.roc import measure_roc
    from bench.engine.sweep import along
    from bench.records.store import Store
    from bench.report import write_report

    add_plugins(options.plugin)
    if over is None and not roc:
        raise InputError("Expected --over NAME=VALUE,VALUE,VALUE, or --roc, or both.")
    if over is not None:
        attack, defense = along(over, attack, defense)
    store = Store(options.results)
    plan = options.plan(attack, defense, store)
    code = run_plan(plan, store, options.plugin or [], options.make_engine(options.device), options.timeout)
    if roc:
        typer.echo(f"measured {measure_roc(plan, options.setting(), store)} ROC curves")
        write_report(options.results)
    typer.echo(f"drawn in {options.results / 'site' / 'curves.html'}")
    sys.exit(code)


@with_options
def train_command(
    *,
    defense: DefensesOption,
    options: InputOptions,
    seed: SeedsOption = "0",
    plugin: PluginsOption = None,
) -> None:
    """Train defenses as `bench run` would, and keep what they learn for `bench run`.

    Example: `bench train --defense adversarial-training,apr:attention=false`

    An interrupted training resumes where it stopped.
    """
    from bench.cli.train import train_defenses

    add_plugins(plugin)
    train_defenses(options.setting(), defense, seeds_of(seed))


def show_command(
    cell: Annotated[str, typer.Argument(help="A cell as its record prints it, 'dataset=photos …', or FILE.toml.")],
    results: ResultsOption = Path("results"),
    dataset: Annotated[str | None, typer.Option(help="The cell's data set, if it is a folder.")] = None,
    weights: WeightsOption = None,
    pictures: Annotated[Path | None, typer.Option(help="Write pictures of the cell into this folder.")] = None,
    device: DeviceOption = "cpu",
    plugin: PluginsOption = None,
) -> None:
    """Show one cell: numbers, provenance, the command that computes it, and pictures.

    Examples: `bench show "attack=patch defense=lgs tier=adaptive" --pictures pictures`

    `bench show results/experiments/experiment.toml` shows an experiment and what is computed of it.
    """
    from bench.records.store import Store
    from bench.report import describe

    add_plugins(plugin)
    if cell.endswith(".toml"):
        typer.echo(describe_experiment(Path(cell), Store(results)))
        return
    record = Store(results).find(cell)
    typer.echo(describe(record))
    if pictures is not None:
        from bench.engine.pictures import write_pictures
        from bench.engine.setting import setting_of

        setting = setting_of(record.cell, dataset, weights, checked_device(device))
        for path in write_pictures(record, setting, pictures):
            typer.echo(f"wrote {path}")
