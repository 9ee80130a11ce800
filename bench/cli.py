"""argv -> the rooms of the bench, nothing else. What computes is imported only by the commands that compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from bench.errors import InputError

if TYPE_CHECKING:
    from bench.outcome import Tier
    from bench.submit.verify import Verdict

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
Mean = Annotated[str | None, typer.Option(help="Normalisation inside the model, such as 0.5:0.5:0.5.")]
Std = Annotated[str | None, typer.Option(help="As --mean.")]
Device = Annotated[str, typer.Option(help="Where torch computes: cpu, cuda, cuda:1.")]
Images = Annotated[str, typer.Option(help="How many evaluation images, or 'all'.")]
Tiers = Annotated[Literal["oblivious", "adaptive", "both"], typer.Option(help="What the attacker knows.")]
Targeted = Annotated[bool, typer.Option("--targeted", help="Want a random other class for each image.")]
Target = Annotated[str | None, typer.Option(help="Want this class: its name or its number.")]
Effort = Annotated[Literal["quick", "standard", "paper"], typer.Option(help="Presets of the attacks.")]
Seeds = Annotated[str, typer.Option(help="Seeds with commas between them.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0 computes in this one.")]
Timeout = Annotated[float | None, typer.Option(min=1, help="Seconds that a cell may take.")]


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
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images attacked at once.")] = None,
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
    from bench import console, plan, scene
    from bench.store import Store

    _add(plugin)
    setting = scene.Setting(
        dataset=dataset,
        model=model,
        images=_count(images),
        goal=_goal(targeted, target),
        weights=weights,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        device=_device(device),
        batch_size=batch_size,
    )
    store, seeds = Store(results), [_whole(one, "--seed") for one in seed.split(",")]
    planned = plan.plan(setting, attack, defense, _tiers(tier), seeds, effort, store)
    sys.exit(console.compute(planned, store, plugin or [], workers, timeout))


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
    from bench import console, plan, scene
    from bench import curve as drawing
    from bench.report import write_report
    from bench.store import Store

    _add(plugin)
    if over is None and not roc:
        raise InputError("Expected --over NAME=VALUE,VALUE,VALUE, or --roc, or both.")
    if over is not None:
        attack, defense = drawing.along(over, attack, defense)
    setting = scene.Setting(
        dataset=dataset,
        model=model,
        images=_count(images),
        goal=_goal(targeted, target),
        weights=weights,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        device=_device(device),
    )
    store, seeds = Store(results), [_whole(one, "--seed") for one in seed.split(",")]
    planned = plan.plan(setting, attack, defense, _tiers(tier), seeds, effort, store)
    code = console.compute(planned, store, plugin or [], workers, timeout)
    if roc:
        typer.echo(f"measured {drawing.measure_roc(planned, setting, store)} ROC curves")
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
    from bench import scene
    from bench import train as training

    _add(plugin)
    setting = scene.Setting(
        dataset=dataset,
        model=model,
        images=1,
        weights=weights,
        mean=_numbers(mean, "--mean"),
        std=_numbers(std, "--std"),
        device=_device(device),
    )
    training.train(setting, defense, [_whole(one, "--seed") for one in seed.split(",")])


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
        from bench import show as showing
        from bench.store import Store

        _add(plugin)
        for line in showing.sheets(Store(results), cells, pictures, dataset, weights, _device(device)):
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


@app.command()
def new(
    kind: Annotated[Literal["defense"], typer.Argument(help="What to start: a defense.")],
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and hyphens.")],
    folder: Annotated[Path, typer.Option(help="Where its files go.")] = Path(),
) -> None:
    """Start a defense: a file that works, its test, and a stub for author and link.

    Example: `bench new defense my-blur`
    """
    from bench.submit import new as starting

    for path in starting.new(name, folder):
        typer.echo(f"wrote {path}")


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(help="The Python file with the defense.")],
    out: Annotated[Path | None, typer.Option(help="The bundle; by default NAME.zip here.")] = None,
    defense: Annotated[str | None, typer.Option(help="Which one, with parameters, if the file has several.")] = None,
    protocol: Annotated[str, typer.Option(help="The standard protocol.")] = "v1",
    weights: Annotated[list[Path] | None, typer.Option(help="safetensors that the code reads; repeatable.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes; 0 computes in this one.")] = 1,
    timeout: Annotated[float | None, typer.Option(min=1, help="Seconds that a cell may take.")] = None,
) -> None:
    """Run the standard protocol on a defense and pack everything into a bundle.

    Example: `bench submit my_blur.py`
    """
    from bench.submit import make

    bundle = out or Path(f"{file.stem}.zip")
    whole = make.submit(file, bundle, defense, protocol, weights, workers, timeout)
    typer.echo(f"wrote {bundle}")
    sys.exit(0 if whole else 1)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="What 'bench submit' wrote.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Which part of the cells is computed again.")] = 0.25,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a table for a pull request.")] = False,
) -> None:
    """Check a bundle and compute a random part of it again; its code runs behind walls.

    Example: `bench verify my_blur.zip --share 0.5`
    """
    sys.exit(0 if _verdict(bundle, share, markdown).status == "verified" else 1)


@app.command()
def accept(
    bundle: Annotated[Path, typer.Argument(help="What 'bench submit' wrote.")],
    results: Results = Path("results"),
    share: Annotated[float, typer.Option(min=0, max=1, help="Which part of the cells is computed again.")] = 0.25,
    replace: Annotated[
        bool, typer.Option("--replace", help="In the place of one of this name with other code.")
    ] = False,
) -> None:
    """Verify a bundle, and if it is what it says put it on the board.

    Example: `bench accept my_blur.zip`
    """
    from bench.submit import accept as accepting

    verdict = _verdict(bundle, share, False)
    for path in accepting.accept(verdict, results, replace):
        typer.echo(f"wrote {path}")


def _verdict(bundle: Path, share: float, markdown: bool) -> Verdict:
    from bench.submit import told
    from bench.submit import verify as verifying

    verdict = verifying.verify(bundle, share, told=lambda line: typer.echo(line, err=True))
    typer.echo(told.markdown(verdict) if markdown else "\n".join(told.lines(verdict)))
    return verdict


@app.command()
def import_attack(
    file: Annotated[Path, typer.Argument(help="safetensors with 'adversarial' and 'index'.")],
    defense: Annotated[str, typer.Option(help="Whose row it is.")],
    attack_name: Annotated[str, typer.Option(help="What the attack will be called on the board.")],
    author: Annotated[str, typer.Option(help="Who made the images; shown with them.")],
    within: Annotated[str, typer.Option(help="An attack of the board whose budget every image keeps.")],
    dataset: Dataset = "photos",
    model: Model = "photos-cnn",
    weights: Weights = None,
    images: Annotated[str, typer.Option(help="How many images the row has, or 'all'.")] = "200",
    tier: Annotated[Literal["oblivious", "adaptive"], typer.Option(help="What the attacker knew.")] = "adaptive",
    effort: Annotated[Literal["quick", "standard", "paper"], typer.Option(help="Of the row.")] = "standard",
    seed: Annotated[int, typer.Option(help="Of the row.")] = 0,
    bundle: Annotated[Path | None, typer.Option(help="Of a submitted defense; its code runs behind walls.")] = None,
    results: Results = Path("results"),
    plugin: Plugins = None,
) -> None:
    """Put somebody's adversarial images on the board: audited, recounted, with their author and date.

    Example: `bench import-attack FILE --defense lgs --attack-name hole --author "A. Breaker" --within patch`
    """
    from bench import scene
    from bench.sandbox.box import RefusedError
    from bench.submit import breaking

    _add(plugin)
    setting = scene.Setting(dataset=dataset, model=model, images=_count(images), seed=seed, weights=weights)
    try:
        done = breaking.import_attack(
            file, attack_name, author, defense, within, setting, results, effort, tier, bundle
        )
    except RefusedError as error:
        raise InputError(f"The bundle is refused: {error}.") from error
    typer.echo(f"worst case of {defense} ({tier}): {100 * done.before:.1f} % before, {100 * done.after:.1f} % now")
    for path in done.files:
        typer.echo(f"wrote {path}")


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
    from bench import compare as comparing

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
    from bench import export as exporting

    content = exporting.export(results, format)
    if out is not None:
        out.write_bytes(content)
        typer.echo(f"wrote {out}")
    elif format == "parquet":
        raise InputError("Expected --out FILE with --format parquet: it is no text.")
    else:
        typer.echo(content.decode(), nl=False)


def _add(plugins: list[Path] | None) -> None:
    from bench.registry import add_file

    for path in plugins or []:
        add_file(path)


def _count(images: str) -> int | None:
    return None if images == "all" else _whole(images, "--images")


def _goal(targeted: bool, target: str | None) -> str:
    return f"targeted:{target}" if target is not None else "targeted" if targeted else "untargeted"


def _tiers(tier: Literal["oblivious", "adaptive", "both"]) -> tuple[Tier, ...]:
    return ("oblivious", "adaptive") if tier == "both" else (tier,)


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
