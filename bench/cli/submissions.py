"""The commands of who makes a defense, judges somebody's, or breaks it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.options import Dataset, Model, Plugins, Results, Weights, add_plugins, count
from bench.errors import InputError

if TYPE_CHECKING:
    from bench.submit.verify import Verdict

app = typer.Typer()


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="An attack or a defense with its parameters, or a Python file.")],
    plugin: Plugins = None,
) -> None:
    """Run the contract checks of an attack or a defense, built in or your own.

    Examples: `bench check lgs`, `bench check acme_blur.py`
    """
    from bench.checks import run as checking

    add_plugins(plugin)
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
    from bench.submit import scaffold as starting

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
    from bench.cli import progress
    from bench.submit import submit as make

    bundle = out or Path(f"{file.stem}.zip")
    whole = make.submit(
        file,
        bundle,
        defense,
        protocol,
        weights,
        compute=lambda plan, store, plugins: progress.run(plan, store, plugins, workers, timeout),
    )
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
    from bench.engine.setting import Setting
    from bench.errors import RefusedError
    from bench.submit import import_attack as breaking

    add_plugins(plugin)
    setting = Setting(dataset=dataset, model=model, images=count(images), seed=seed, weights=weights)
    try:
        done = breaking.import_attack(
            file, attack_name, author, defense, within, setting, results, effort, tier, bundle
        )
    except RefusedError as error:
        raise InputError(f"The bundle is refused: {error}.") from error
    typer.echo(f"worst case of {defense} ({tier}): {100 * done.before:.1f} % before, {100 * done.after:.1f} % now")
    for path in done.files:
        typer.echo(f"wrote {path}")


def _verdict(bundle: Path, share: float, markdown: bool) -> Verdict:
    from bench.submit import verdict_text as told
    from bench.submit import verify as verifying

    verdict = verifying.verify(bundle, share, told=lambda line: typer.echo(line, err=True))
    typer.echo(told.markdown(verdict) if markdown else "\n".join(told.lines(verdict)))
    return verdict
