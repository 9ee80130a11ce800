"""Experiment files on the command line: they give options, and the command line's own options go before them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.benchmarks.experiment import ExperimentFile, load_experiment, toml_text
from bench.core.files import write_text
from bench.core.identity import without_hashes
from bench.errors import InputError
from bench.records.schema import Cell

_FILE = "bench.experiment"
"""Where the context of a command keeps the file that its options come from."""


def _take(context: typer.Context, path: Path | None) -> Path | None:
    """Makes what a file says the defaults of the command's options."""
    if path is not None:
        file = load_experiment(path)
        context.meta[_FILE] = file
        context.default_map = file.experiment.options()
    return path


ExperimentArgument = Annotated[
    Path | None,
    typer.Argument(
        callback=_take, is_eager=True, metavar="[FILE.toml]", help="An experiment file; options go before it."
    ),
]


def from_file(context: typer.Context) -> list[str]:
    """The options of a command that a file gives, and no word of the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source and source.name == "DEFAULT_MAP"]


@contextmanager
def experiment_of(context: typer.Context) -> Iterator[ExperimentFile | None]:
    """The file that a command was given, whose names exist; errors of its planning say which file they come from."""
    file: ExperimentFile | None = context.meta.get(_FILE)
    if file is None:
        yield None
        return
    try:
        _check_names(file, from_file(context))
        yield file
    except InputError as error:
        raise error if str(file.path) in str(error) else InputError(f"In {file.path}: {error}") from error


def _check_names(file: ExperimentFile, keys: Sequence[str]) -> None:
    """Checks what the file names under these keys."""
    checks = _checks(file.experiment.effort or "standard")
    for key, check in ((key, check) for key, check in checks.items() if key in keys):
        value = getattr(file.experiment, key)
        for text in [value] if isinstance(value, str) else value:
            try:
                check(text)
            except InputError as error:
                raise InputError(f"{file.place(key)}: {error}") from error


def _checks(effort: str) -> dict[str, Callable[[str], Any]]:
    """For each key with names: what raises InputError for one that does not exist."""
    from bench.cli.options import checked_device
    from bench.data.load import DATASETS
    from bench.models import MODELS
    from bench.plugins.registry import make_attack, make_defense
    from bench.plugins.specs import Spec, check_known, split_specs

    def known(names: Iterable[str], what: str) -> Callable[[str], None]:
        return lambda text: check_known(Spec.parse(text).name, names, what)

    def each(check: Callable[[str], Any]) -> Callable[[str], Any]:
        return lambda texts: None if texts.strip() == "all" else [check(text) for text in split_specs(texts)]

    return {
        "dataset": known(DATASETS, "data set"),
        "model": known(MODELS, "model"),
        "attack": each(lambda text: make_attack(text, effort)),
        "defense": each(make_defense),
        "device": checked_device,
    }


def write_experiment(context: typer.Context, file: ExperimentFile, cells: Iterable[Cell], results: Path) -> Path:
    """Writes what was run beside the results: the file's keys, as the command line changed them, without folders."""
    crossed = [cell.with_texts(without_hashes) for cell in cells]
    values: dict[str, Any] = {
        key: list(dict.fromkeys(getattr(cell, key) for cell in crossed))
        for key in ("dataset", "model", "attack", "defense")
    }
    given = context.params
    values |= {key: given[key] for key in ("tier", "effort")}
    values["images"] = given["images"] if given["images"] == "all" else int(given["images"])
    values["seed"] = list(dict.fromkeys(cell.seed for cell in crossed))
    values |= {key: given[key] for key in ("targeted", "target", "batch_size", "timeout") if given[key]}
    values |= {key: given[key] for key in ("device", "workers") if getattr(file.experiment, key) is not None}
    if given["plugin"]:
        values["plugin"] = [path.name for path in given["plugin"]]
    path = results / "experiments" / file.path.name
    write_text(path, "# Written by bench run; its files are named without their folders.\n" + toml_text(values))
    return path
