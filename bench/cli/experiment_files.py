"""Experiment files on the command line: they give options, which the command line's own options override."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.benchmarks.experiment import Experiment, ExperimentFile, load_experiment, toml_text
from bench.benchmarks.named import FIXED, benchmark_path, load_benchmark
from bench.core.files import write_text
from bench.core.identity import without_hashes
from bench.errors import InputError
from bench.plugins.registry import Kind, canonical_text
from bench.plugins.specs import Spec
from bench.records.schema import Cell
from bench.records.store import Store

if TYPE_CHECKING:
    from bench.engine.setting import Setting

_FILE = "bench.experiment"
"""Where the context of a command keeps the file that its options come from."""


def _take(context: typer.Context, path: Path | None) -> Path | None:
    """Makes the values of a file the defaults of the command's options."""
    if path is not None:
        context.meta[_FILE] = _give(context, path)
    return path


ExperimentArgument = Annotated[
    Path | None,
    typer.Argument(callback=_take, is_eager=True, metavar="FILE.toml", help="An experiment file; options override it."),
]


def _take_benchmark(context: typer.Context, name: str | None) -> str | None:
    """Makes the values of a benchmark the defaults of the command's options."""
    if name is not None:
        _give(context, benchmark_path(name))
    return name


def _give(context: typer.Context, path: Path) -> ExperimentFile:
    if context.default_map is not None:
        raise InputError("Expected an experiment file or a benchmark, but got both.")
    file = load_experiment(path)
    context.default_map = file.experiment.options()
    return file


BenchmarkOption = Annotated[
    str | None,
    typer.Option(callback=_take_benchmark, is_eager=True, help="A named benchmark; see 'bench list benchmarks'."),
]


def check_benchmark(context: typer.Context, name: str, settings: list[Setting]) -> None:
    """Raises InputError if this would not be the benchmark: other attacks or images, other data, untrained weights."""
    from bench.engine.on_benchmark import check_inputs

    given = [key for key in FIXED if _source(context, key) == "COMMANDLINE"]
    if given:
        raise InputError(
            f"The benchmark {name!r} fixes --{given[0]}. Leave it out, or copy "
            f"{benchmark_path(name)} and run your own file."
        )
    check_inputs(load_benchmark(name), settings)


def _source(context: typer.Context, key: str) -> str:
    """Where the value of an option comes from, as click calls it."""
    source = context.get_parameter_source(key)
    return source.name if source else ""


@contextmanager
def experiment_of(context: typer.Context) -> Iterator[ExperimentFile | None]:
    """The file that a command was given, whose names exist; errors of its planning say which file they come from."""
    file: ExperimentFile | None = context.meta.get(_FILE)
    if file is None:
        yield None
        return
    try:
        _check_names(file, [key for key in context.params if _source(context, key) == "DEFAULT_MAP"])
        yield file
    except InputError as error:
        raise error if str(file.path) in str(error) else InputError(f"In {file.path}: {error}") from error


def _check_names(file: ExperimentFile, keys: Sequence[str]) -> None:
    """Checks what the file names under these keys."""
    checks = _checks(file.experiment.effort or "standard")
    if file.experiment.engine not in (None, "local"):
        del checks["device"]  # of other machines
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
    from bench.engine.engines import devices_of
    from bench.models import MODELS
    from bench.plugins.registry import make_attack, make_defense
    from bench.plugins.specs import check_known, split_specs

    def known(names: Iterable[str], what: str) -> Callable[[str], None]:
        return lambda text: check_known(Spec.parse(text).name, names, what)

    def each(check: Callable[[str], Any]) -> Callable[[str], Any]:
        return lambda texts: None if texts.strip() == "all" else [check(text) for text in split_specs(texts)]

    return {
        "dataset": known(DATASETS, "data set"),
        "model": known(MODELS, "model"),
        "attack": each(lambda text: make_attack(text, effort)),
        "defense": each(make_defense),
        "device": lambda text: [checked_device(device) for device in devices_of(text)],
    }


def write_experiment(context: typer.Context, file: ExperimentFile, cells: Iterable[Cell], results: Path) -> Path:
    """Saves the run's file next to its results: its keys as the command line changed them, paths without folders."""
    crossed = [cell.with_texts(without_hashes) for cell in cells]
    values: dict[str, Any] = {
        key: list(dict.fromkeys(getattr(cell, key) for cell in crossed))
        for key in ("dataset", "model", "attack", "defense")
    }
    given = context.params
    values |= {key: given[key] for key in ("tier", "effort", "precision")}
    values["images"] = given["images"] if given["images"] == "all" else int(given["images"])
    values["seed"] = list(dict.fromkeys(cell.seed for cell in crossed))
    values |= {key: given[key] for key in ("targeted", "target", "batch_size", "timeout") if given[key]}
    values |= {key: given[key] for key in ("device", "engine", "workers") if getattr(file.experiment, key) is not None}
    if given["plugin"]:
        values["plugin"] = [path.name for path in given["plugin"]]
    path = results / "experiments" / file.path.name
    write_text(path, "# Written by bench run; its files are named without their folders.\n" + toml_text(values))
    return path


def describe_experiment(path: Path, store: Store) -> str:
    """An experiment file in words: its keys, and the records of its cells in a store."""
    file = load_experiment(path)
    given = file.experiment.options()
    statuses = Counter(record.status for record in store.outcomes() if _has(file.experiment, record.cell))
    records = ", ".join(f"{count} {status}" for status, count in sorted(statuses.items())) or "none"
    lines = [f"{key:<18} {value}" for key, value in given.items()]
    advice = f"What is missing: bench run {path} --dry-run"
    return "\n".join([*lines, "", f"Records of its cells in {store.folder}: {records}.", advice])


def _has(experiment: Experiment, cell: Cell) -> bool:
    """Whether a cell is one of an experiment, judged by its texts; keys that are not given fit any cell."""
    texts = cell.with_texts(without_hashes)
    defenses = experiment.defense and ("none", *experiment.defense)  # every run computes the bare model
    lists: dict[str, Sequence[object] | None] = {
        "dataset": _in_order(experiment.dataset),
        "model": _in_order(experiment.model),
        "attack": _canonical("attack", experiment.attack),
        "defense": _canonical("defense", defenses),
        "tier": None if experiment.tier in (None, "both") else (experiment.tier,),
        "seed": experiment.seed,
        "effort": experiment.effort and (experiment.effort,),
        "images": [0 if experiment.images == "all" else experiment.images] if experiment.images else None,
    }
    return all(getattr(texts, key) in values for key, values in lists.items() if values)


def _in_order(texts: Sequence[str] | None) -> list[str]:
    """Texts with their parameters in the order that cells have."""
    return [str(Spec.parse(text)) for text in texts or ()]


def _canonical(kind: Kind, texts: Sequence[str] | None) -> list[str] | None:
    if texts is None or "all" in texts:
        return None
    return [canonical_text(kind, text) for text in texts]
