"""From a file with a defense to a bundle: the cells of a benchmark, computed and packed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save

from bench.benchmarks.named import Benchmark, load_benchmark
from bench.engine.on_benchmark import Inputs, cells_on, check_inputs
from bench.engine.plan import CellTask, Plan, Task, plan
from bench.engine.protect import protect
from bench.engine.testbed import testbed_of
from bench.errors import InputError, RefusedError
from bench.plugins.registry import add_file, canonical_text, load_plugin
from bench.plugins.specs import Spec
from bench.records.store import Store
from bench.submit.bundle import NAME, Manifest, check_tensors, pack, unpack

Compute = Callable[[Plan, Store, list[Path]], int]
"""Computes a plan into a store with plugins from files; returns 0 if no cell failed."""


def submit(
    file: Path,
    out: Path,
    defense: str | None = None,
    benchmark: str = "v1",
    weights: list[Path] | None = None,
    *,
    inputs: Inputs = Inputs(),  # noqa: B008  # it is frozen
    compute: Compute,
) -> bool:
    """Computes the missing cells of a benchmark and packs all of them.

    The records stay beside the bundle, in a folder named like it with `-records`; an interrupted run resumes from them.

    Args:
        file: a Python file with the defense, which imports nothing from beside it. `NAME.toml` beside it may give
            author, link and description.
        out: the bundle.
        defense: its text, if the file has several or it has parameters.
        benchmark: the benchmark's name.
        weights: safetensors beside the file that the code reads.
        inputs: where the benchmark's data and model are.
        compute: computes a plan.

    Returns:
        Whether every cell has a number; the bundle is written in any case.

    Raises:
        InputError: this cannot be submitted.
    """
    names = [name for name in add_file(file) if _is_defense(name)]
    text = canonical_text("defense", defense) if defense else names[0] if len(names) == 1 else ""
    if not text or Spec.parse(text).name not in names:
        raise InputError(f"Expected --defense with one of the defenses in {file}: {', '.join(names) or 'it has none'}.")
    if not NAME.fullmatch(Spec.parse(text).name):
        raise InputError(f"Expected a name of small letters, digits and hyphens, but got {Spec.parse(text).name!r}.")
    beside = _weights(file, weights or [])
    chosen = load_benchmark(benchmark)
    settings = {seed: inputs.setting(chosen, seed) for seed in chosen.seeds}
    check_inputs(chosen, list(settings.values()))
    store, first = Store(out.with_name(out.stem + "-records")), settings[chosen.seeds[0]]
    planned = plan(first, ",".join(chosen.attacks), text, chosen.tiers, chosen.seeds, chosen.effort, store)
    # The times of another machine cannot be verified.
    tasks: list[Task] = [task for task in planned.tasks if isinstance(task, CellTask)]
    whole = compute(replace(planned, tasks=tasks), store, [file]) == 0
    files = {f"code/{file.name}": file.read_bytes()} | beside
    for cell in cells_on(chosen, testbed_of(first), text):
        path = store.path(cell)
        if not path.is_file():
            raise InputError(f"The run was interrupted before {cell}. The same command resumes there.")
        files[f"records/{cell.slug}.json"] = path.read_bytes()
    for seed, setting in settings.items():
        learned = protect(testbed_of(setting), text, lambda share, doing: None).learned
        if learned:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in learned.items()}
            files[f"learned/seed-{seed}.safetensors"] = save(tensors)
    pack(out, _manifest(file, text, chosen), files)
    try:
        unpack(out)
    except RefusedError as error:
        raise InputError(f"The bundle {out} would be refused: {error}.") from error
    return whole


def _is_defense(name: str) -> bool:
    try:
        load_plugin("defense", name)
    except InputError:
        return False
    return True


def _weights(file: Path, paths: list[Path]) -> dict[str, bytes]:
    """Files of weights by their names in the bundle; what `verify` would refuse is an error here."""
    if not file.stem.isidentifier():
        raise InputError(f"Expected a file name of letters, digits and underscores, but got {file.name!r}.")
    contents = {}
    for path in paths:
        try:
            content = path.read_bytes()
            check_tensors(path.name, content)
        except (OSError, RefusedError) as error:
            raise InputError(f"Expected weights as safetensors in {path}, but: {error}.") from error
        if path.resolve().parent != file.resolve().parent:
            raise InputError(f"Expected {path.name} beside {file}, where the code in the bundle finds it.")
        contents[f"code/{path.name}"] = content
    return contents


def _manifest(file: Path, text: str, benchmark: Benchmark) -> Manifest:
    about = {"author": "", "link": "", "description": ""}
    stub = file.with_suffix(".toml")
    if stub.is_file():
        try:
            given = tomllib.loads(stub.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{stub} cannot be read: {error}.") from error
        if set(given) - set(about) or not all(isinstance(value, str) for value in given.values()):
            raise InputError(f"Expected texts named {', '.join(about)} in {stub}, but got {given}.")
        about |= given
    return Manifest(text, benchmark.name, benchmark.digest, about["author"], about["link"], about["description"])


def manifest_text(manifest: Manifest) -> str:
    """A manifest as JSON."""
    return json.dumps(asdict(manifest), indent=1, ensure_ascii=False) + "\n"
