"""Commands for authors of defenses, for those who verify them, and for those who break them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.cli.options import (
    DeviceOption,
    EffortOption,
    ImagesOption,
    InputOptions,
    PluginsOption,
    ResultsOption,
    TimeoutOption,
    WeightsOption,
    WorkersOption,
    add_plugins,
    checked_device,
    image_count,
    with_options,
)
from bench.core.text import plain
from bench.errors import InputError
from bench.records.schema import Tier

if TYPE_CHECKING:
    from bench.engine.on_benchmark import Inputs
    from bench.submit.verify import Verdict

BundleArgument = Annotated[Path, typer.Argument(help="A bundle that 'bench submit' wrote.")]
DataOption = Annotated[str | None, typer.Option("--dataset", help="The benchmark's data, if they are in a folder.")]
NetworkOption = Annotated[str | None, typer.Option("--model", help="Another model than the benchmark's.")]
ShareOption = Annotated[float, typer.Option(min=0, max=1, help="Share of the cells to compute again.")]


def check_command(
    name: Annotated[str, typer.Argument(help="An attack or a defense with its parameters, or a Python file.")],
    plugin: PluginsOption = None,
) -> None:
    """Run the contract checks of an attack or a defense, built in or your own.

    Examples: `bench check lgs`, `bench check acme_blur.py`
    """
    from bench.checks.run import print_checks

    add_plugins(plugin)
    sys.exit(print_checks(name))


def new_command(
    kind: Annotated[Literal["defense"], typer.Argument(help="What to start: a defense.")],
    name: Annotated[str, typer.Argument(help="Its name: small letters, digits and hyphens.")],
    folder: Annotated[Path, typer.Option(help="Folder for its files.")] = Path(),
) -> None:
    """Start a defense: a working file, its test, and a stub for author and link.

    Example: `bench new defense my-blur`
    """
    from bench.submit.scaffold import new

    for path in new(name, folder):
        typer.echo(f"wrote {path}")


def submit_command(
    file: Annotated[Path, typer.Argument(help="The Python file with the defense.")],
    out: Annotated[Path | None, typer.Option(help="The bundle; by default NAME.zip here.")] = None,
    defense: Annotated[str | None, typer.Option(help="Which one, with parameters, if the file has several.")] = None,
    benchmark: Annotated[str, typer.Option(help="A benchmark; see 'bench list benchmarks'.")] = "v1",
    dataset: DataOption = None,
    model: NetworkOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
    code_weights: Annotated[list[Path] | None, typer.Option(help="safetensors that the code reads.")] = None,
    workers: WorkersOption = 1,
    timeout: TimeoutOption = None,
) -> None:
    """Compute a benchmark for a defense and pack everything into a bundle.

    Examples: `bench submit my_blur.py`

    `bench submit my_blur.py --benchmark cifar10-patch --dataset folder:PATH,name=cifar10-mine --weights FILE`
    """
    from bench.cli.progress import run_plan
    from bench.engine.engines import Local
    from bench.submit.submit import submit

    bundle = out or Path(f"{file.stem}.zip")
    whole = submit(
        file,
        bundle,
        defense,
        benchmark,
        code_weights,
        inputs=_inputs(dataset, model, weights, device),
        compute=lambda plan, store, plugins: run_plan(plan, store, plugins, Local(workers), timeout),
    )
    typer.echo(f"wrote {bundle}")
    sys.exit(0 if whole else 1)


def verify_command(
    bundle: BundleArgument,
    share: ShareOption = 0.25,
    dataset: DataOption = None,
    model: NetworkOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a pull request.")] = False,
) -> None:
    """Check a bundle and compute a random part of it again; its code runs behind walls.

    Example: `bench verify my_blur.zip --share 0.5`
    """
    inputs = _inputs(dataset, model, weights, device)
    sys.exit(0 if _verdict(bundle, share, markdown, inputs).status == "verified" else 1)


def accept_command(
    bundle: BundleArgument,
    results: ResultsOption = Path("results"),
    share: ShareOption = 0.25,
    dataset: DataOption = None,
    model: NetworkOption = None,
    weights: WeightsOption = None,
    device: DeviceOption = "cpu",
    replace_other: Annotated[
        bool, typer.Option("--replace", help="Replace a defense of the same name but other code.")
    ] = False,
) -> None:
    """Verify a bundle, and put it on the board if it is what it claims to be.

    Example: `bench accept my_blur.zip`
    """
    from bench.submit.accept import accept

    verdict = _verdict(bundle, share, False, _inputs(dataset, model, weights, device))
    for path in accept(verdict, results, replace_other):
        typer.echo(f"wrote {path}")


@with_options
def import_attack_command(
    file: Annotated[Path, typer.Argument(help="safetensors with 'adversarial' and 'index'.")],
    *,
    defense: Annotated[str, typer.Option(help="The defense that was attacked.")],
    attack_name: Annotated[str, typer.Option(help="The attack's name on the board.")],
    author: Annotated[str, typer.Option(help="Who made the images; shown with them.")],
    within: Annotated[str, typer.Option(help="The attack of the board whose budget every image keeps.")],
    options: InputOptions,
    images: ImagesOption = "200",
    tier: Annotated[Tier, typer.Option(help="What the attacker knew.")] = "adaptive",
    effort: EffortOption = "standard",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the row.")] = 0,
    bundle: Annotated[Path | None, typer.Option(help="Bundle of a submitted defense, run behind walls.")] = None,
    results: ResultsOption = Path("results"),
    plugin: PluginsOption = None,
) -> None:
    """Put adversarial images on the board: audited, recounted, with their author and date.

    Example: `bench import-attack FILE --defense lgs --attack-name hole --author "A. Breaker" --within patch`
    """
    from bench.errors import RefusedError
    from bench.submit.import_attack import import_attack

    add_plugins(plugin)
    setting = replace(options.setting(), images=image_count(images), seed=seed)
    try:
        done = import_attack(file, attack_name, author, defense, within, setting, results, effort, tier, bundle)
    except RefusedError as error:
        raise InputError(f"The bundle is refused: {plain(str(error))}.") from error
    typer.echo(f"worst case of {defense} ({tier}): {100 * done.before:.1f} % before, {100 * done.after:.1f} % now")
    for path in done.files:
        typer.echo(f"wrote {path}")


def _inputs(dataset: str | None, model: str | None, weights: Path | None, device: str) -> Inputs:
    from bench.engine.on_benchmark import Inputs

    return Inputs(dataset, model, weights, checked_device(device))


def _verdict(bundle: Path, share: float, markdown: bool, inputs: Inputs) -> Verdict:
    from bench.submit import verdict_text
    from bench.submit.verify import verify

    verdict = verify(bundle, share, progress=lambda line: typer.echo(line, err=True), inputs=inputs)
    typer.echo(verdict_text.verdict_markdown(verdict) if markdown else "\n".join(verdict_text.verdict_lines(verdict)))
    return verdict
