"""argv -> the rooms of the bench, nothing else. What computes is imported only by the commands that compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bench.cli import results as cli_results
from bench.cli import submissions as cli_defenses
from bench.cli.options import (
    Dataset,
    Device,
    Effort,
    Images,
    Mean,
    Model,
    Plugins,
    Results,
    Seeds,
    Std,
    Target,
    Targeted,
    Tiers,
    Timeout,
    Weights,
    Workers,
    add_plugins,
    checked_device,
    count,
    goal_of,
    numbers,
    tiers_of,
    whole,
)
from bench.errors import InputError

app = typer.Typer(
    help="Crosses attacks with defenses of image classifiers and says what each defense is worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)


def main() -> None:
    """The console script: what the user can mend ends with exit code 2 and one line that says how."""
    try:
        app()
    except InputError as error:
        _refuse(error)


def _refuse(error: InputError) -> NoReturn:
    typer.echo(f"Error: {error}", err=True)
    sys.exit(2)


@app.command()
def run(
    attack: Annotated[str, typer.Option(help="Attacks with commas between them, or 'all'.")] = "all",
    defense: Annotated[str, typer.Option(help="Defenses with commas between them, or 'all'.")] = "all",
    dataset: Dataset = "photos",
    model: Model = "photos-cnn",
    weights: Weights = None,
    mean: Mean = None,
    std: Std = None,
    images: Images = "200",
    tier: Tiers = "both",
    targeted: Targeted = False,
    target: Target = None,
    effort: Effort = "standard",
    seed: Seeds = "0",
    device: Device = "cpu",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images attacked at once; an interrupted cell goes on after whole batches."),
    ] = None,
    workers: Workers = 1,
    timeout: Timeout = None,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Compute cells that are not there yet, and print their table.

    Examples:

    `bench run --attack patch --defense lgs`

    `bench run --attack fgsm,patch:area=0.1 --defense none,lgs,jpeg:quality=30 --images 100`

    `bench run --dataset folder:PATH,train=0.3 --model resnet20 --weights FILE`

    A cell that was computed is not computed again; a run that was interrupted goes on where it stopped.
    """
    from bench.cli import progress
    from bench.engine.plan import plan
    from bench.engine.setting import Setting
    from bench.records.store import Store

    add_plugins(plugin)
    setting = Setting(
        dataset=dataset,
        model=model,
        images=count(images),
        goal=goal_of(targeted, target),
        weights=weights,
        mean=numbers(mean, "--mean"),
        std=numbers(std, "--std"),
        device=checked_device(device),
        batch_size=batch_size,
    )
    store, seeds = Store(results), [whole(one, "--seed") for one in seed.split(",")]
    planned = plan(setting, attack, defense, tiers_of(tier), seeds, effort, store)
    sys.exit(progress.run(planned, store, plugin or [], workers, timeout))


@app.command()
def curve(
    attack: Annotated[str, typer.Option(help="Attacks with commas between them.")],
    over: Annotated[
        str | None, typer.Option(help="NAME=VALUE,VALUE,…: a parameter of the attacks or defenses.")
    ] = None,
    roc: Annotated[bool, typer.Option("--roc", help="Measure ROC curves of the cells.")] = False,
    defense: Annotated[str, typer.Option(help="Defenses with commas between them.")] = "none",
    dataset: Dataset = "photos",
    model: Model = "photos-cnn",
    weights: Weights = None,
    mean: Mean = None,
    std: Std = None,
    images: Images = "200",
    tier: Tiers = "both",
    targeted: Targeted = False,
    target: Target = None,
    effort: Effort = "standard",
    seed: Seeds = "0",
    device: Device = "cpu",
    workers: Workers = 1,
    timeout: Timeout = None,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Compute cells along one parameter, and draw accuracy, δ and β over it; or measure ROC curves.

    Examples:

    `bench curve --attack patch --over area=0.01,0.02,0.05,0.1,0.25 --defense lgs`

    `bench curve --attack fgsm --over quality=10,30,75 --defense jpeg`

    `bench curve --attack pixel --defense annnet --roc`

    The cells are like those of `bench run`; the curves are on the site and beside it as SVG and CSV.
    """
    from bench.cli import progress
    from bench.engine.plan import plan
    from bench.engine.roc import measure_roc
    from bench.engine.setting import Setting
    from bench.engine.sweep import along
    from bench.records.store import Store
    from bench.report import write_report

    add_plugins(plugin)
    if over is None and not roc:
        raise InputError("Expected --over NAME=VALUE,VALUE,VALUE, or --roc, or both.")
    if over is not None:
        attack, defense = along(over, attack, defense)
    setting = Setting(
        dataset=dataset,
        model=model,
        images=count(images),
        goal=goal_of(targeted, target),
        weights=weights,
        mean=numbers(mean, "--mean"),
        std=numbers(std, "--std"),
        device=checked_device(device),
    )
    store, seeds = Store(results), [whole(one, "--seed") for one in seed.split(",")]
    planned = plan(setting, attack, defense, tiers_of(tier), seeds, effort, store)
    code = progress.run(planned, store, plugin or [], workers, timeout)
    if roc:
        typer.echo(f"measured {measure_roc(planned, setting, store)} ROC curves")
        write_report(results)
    typer.echo(f"drawn in {results / 'site' / 'curves.html'}")
    sys.exit(code)


@app.command()
def train(
    defense: Annotated[str, typer.Option(help="Defenses with commas between them.")],
    dataset: Dataset = "photos",
    model: Model = "photos-cnn",
    weights: Weights = None,
    mean: Mean = None,
    std: Std = None,
    seed: Annotated[str, typer.Option(help="Seeds with commas between them.")] = "0",
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Train what is not trained yet of some defenses, as `bench run` would, and keep it for `bench run`.

    Example: `bench train --defense adversarial-training,apr:attention=false`

    A training that was interrupted goes on where it stopped.
    """
    from bench.cli import train as training
    from bench.engine.setting import Setting

    add_plugins(plugin)
    setting = Setting(
        dataset=dataset,
        model=model,
        images=1,
        weights=weights,
        mean=numbers(mean, "--mean"),
        std=numbers(std, "--std"),
        device=checked_device(device),
    )
    training.train(setting, defense, [whole(one, "--seed") for one in seed.split(",")])


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(help="attacks, defenses, datasets, models, or everything.")] = "everything",
    markdown: Annotated[bool, typer.Option("--markdown", help="Tell all of each attack or defense.")] = False,
    plugin: Plugins = None,
) -> None:
    """Name the attacks, defenses, data sets and models.

    Examples: `bench list defenses`, `bench list attacks --markdown`
    """
    from bench.cli import listing

    add_plugins(plugin)
    if not markdown:
        typer.echo(listing.text(what))
        return
    if what not in ("attacks", "defenses"):
        raise InputError(f"Expected attacks or defenses with --markdown, but got {what!r}.")
    from bench.cli import reference as pages

    typer.echo(pages.page("attack" if what == "attacks" else "defense"), nl=False)


@app.command()
def show(
    cell: Annotated[str, typer.Argument(help="The cell as its record prints it: 'dataset=photos model=… …'.")],
    results: Results = Path("results"),
    dataset: Annotated[str | None, typer.Option(help="Where the cell's data set lies, if it is a folder.")] = None,
    weights: Weights = None,
    pictures: Annotated[Path | None, typer.Option(help="Write pictures of the cell into this folder.")] = None,
    device: Device = "cpu",
    plugin: Plugins = None,
) -> None:
    """Show one cell: numbers, provenance, the command that computes it, and pictures.

    Example: `bench show "attack=patch defense=lgs tier=adaptive" --pictures pictures`
    """
    from bench.records.store import Store
    from bench.report import describe

    add_plugins(plugin)
    found = Store(results).find(cell)
    typer.echo(describe(found))
    if pictures is not None:
        from bench.engine import pictures as showing
        from bench.engine.setting import setting_of

        setting = setting_of(found.cell, dataset, weights, checked_device(device))
        for path in showing.pictures(found.cell, setting, pictures):
            typer.echo(f"wrote {path}")


app.add_typer(cli_results.app)
app.add_typer(cli_defenses.app)
