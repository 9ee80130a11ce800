"""argv -> the rooms of the bench, nothing else. What computes is imported only by the commands that compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from bench.errors import InputError

app = typer.Typer(
    help="Crosses attacks with defenses of image classifiers and says what each defense is worth.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
)

Results = Annotated[Path, typer.Option(help="Folder of the records and the tables.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with plugins; repeatable.")]
Dataset = Annotated[str, typer.Option(help="A data set; see 'bench list'.")]
Model = Annotated[str, typer.Option(help="A classifier; see 'bench list'.")]
Weights = Annotated[Path | None, typer.Option(help="The model's weights: safetensors, or a state dict.")]
Device = Annotated[str, typer.Option(help="Where torch computes: cpu, cuda, cuda:1.")]


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
    mean: Annotated[str | None, typer.Option(help="Normalisation inside the model, such as 0.5:0.5:0.5.")] = None,
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None,
    images: Annotated[str, typer.Option(help="How many evaluation images, or 'all'.")] = "200",
    tier: Annotated[Literal["oblivious", "adaptive", "both"], typer.Option(help="What the attacker knows.")] = "both",
    targeted: Annotated[bool, typer.Option("--targeted", help="Want a random other class for each image.")] = False,
    target: Annotated[str | None, typer.Option(help="Want this class: its name or its number.")] = None,
    effort: Annotated[Literal["quick", "standard", "paper"], typer.Option(help="Presets of the attacks.")] = "standard",
    seed: Annotated[str, typer.Option(help="Seeds with commas between them.")] = "0",
    device: Device = "cpu",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images attacked at once.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 computes in this one.")] = 1,
    timeout: Annotated[float | None, typer.Option(min=1, help="Seconds that a cell may take.")] = None,
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
    from bench import console, plan, scene
    from bench.store import Store

    _add(plugin)
    setting = scene.Setting(
        dataset=dataset,
        model=model,
        images=None if images == "all" else _whole(images, "--images"),
        goal=f"targeted:{target}" if target is not None else "targeted" if targeted else "untargeted",
        weights=weights,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        device=_device(device),
        batch_size=batch_size,
    )
    store = Store(results)
    seeds = [_whole(one, "--seed") for one in seed.split(",")]
    tiers = plan.TIERS if tier == "both" else (tier,)
    planned = plan.plan(setting, attack, defense, tiers, seeds, effort, store)
    sys.exit(console.compute(planned, store, plugin or [], workers, timeout))


@app.command(name="list")
def list_(
    what: Annotated[str, typer.Argument(help="attacks, defenses, datasets, models, or everything.")] = "everything",
    markdown: Annotated[bool, typer.Option("--markdown", help="Tell all of each attack or defense.")] = False,
    plugin: Plugins = None,
) -> None:
    """Name the attacks, defenses, data sets and models.

    Examples: `bench list defenses`, `bench list attacks --markdown`
    """
    from bench import listing

    _add(plugin)
    if not markdown:
        typer.echo(listing.text(what))
        return
    if what not in ("attacks", "defenses"):
        raise InputError(f"Expected attacks or defenses with --markdown, but got {what!r}.")
    from bench import pages

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
    from bench.report import describe
    from bench.store import Store

    _add(plugin)
    found = Store(results).find(cell)
    typer.echo(describe(found))
    if pictures is not None:
        from bench import scene
        from bench import show as showing

        setting = scene.setting_of(found.cell, dataset, weights, _device(device))
        for path in showing.pictures(found.cell, setting, pictures):
            typer.echo(f"wrote {path}")


@app.command()
def report(
    results: Results = Path("results"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where tables are not current.")] = False,
) -> None:
    """Make the tables and the page from the records.

    Example: `bench report --check`
    """
    from bench.report import stale, write_report

    if not (results / "records").is_dir():
        raise InputError(f"Expected records in {results / 'records'}, but there is no such folder. First: bench run.")
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
    from bench.tables import stale_tables, write_tables

    if not check:
        for path in write_tables(results):
            typer.echo(f"wrote {path}")
        return
    old = stale_tables(results)
    for path in old:
        typer.echo(f"not current: {path}", err=True)
    sys.exit(1 if old else 0)


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="An attack or a defense with its parameters, or a Python file.")],
    plugin: Plugins = None,
) -> None:
    """Run the contract checks of an attack or a defense, built in or your own.

    Examples: `bench check lgs`, `bench check acme_blur.py`
    """
    from bench import check as checking

    _add(plugin)
    sys.exit(checking.report(name))


def _add(plugins: list[Path] | None) -> None:
    from bench.registry import add_file

    for path in plugins or []:
        add_file(path)


def _whole(text: str, option: str) -> int:
    from bench.registry import read

    number: int = read(text, int, option)
    return number


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    from bench.registry import read

    return None if text is None else read(text, tuple[float, ...], option)


def _device(text: str) -> str:
    """The device, if torch has it."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Expected a device that torch has here (cpu, cuda …), but got {text!r}.") from error
    return text
