"""From a file with a defense to a bundle: the cells of a protocol, computed and packed."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from safetensors.torch import save as save_tensors

from bench.engine.plan import Plan, plan
from bench.engine.protect import protect
from bench.engine.testbed import testbed_of
from bench.errors import InputError, RefusedError
from bench.plugins.registry import add_file, canonical_text, load_plugin
from bench.plugins.specs import Spec
from bench.records.store import Store
from bench.submit import protocol as protocols
from bench.submit.bundle import NAME, Manifest, pack, tensors, unpack

Compute = Callable[[Plan, Store, list[Path]], int]
"""Computes a plan into a store with plugins from files; returns 0 if no cell failed."""


def submit(
    file: Path,
    out: Path,
    defense: str | None = None,
    protocol: str = "v1",
    weights: list[Path] | None = None,
    *,
    compute: Compute,
) -> bool:
    """Computes what is not there yet of a protocol, and packs it.

    The records are kept beside the bundle, in `OUT without its ending`-records: a run that was interrupted goes on.

    Args:
        file: a Python file with the defense, and nothing that it imports from beside it. `NAME.toml` beside it,
            if there is one, tells author, link and description.
        out: the bundle.
        defense: its text, where the file has several or it is to have parameters.
        protocol: the protocol's name.
        weights: safetensors that the code reads from beside itself.
        compute: computes a plan.

    Returns:
        Whether every cell has a number (or says that it makes no sense); the bundle is written in any case.

    Raises:
        InputError: what came is no submission.
    """
    found = [name for name in add_file(file) if _is_defense(name)]
    text = canonical_text("defense", defense) if defense else found[0] if len(found) == 1 else ""
    if not text or Spec.parse(text).name not in found:
        raise InputError(f"Expected --defense with one of the defenses in {file}: {', '.join(found) or 'it has none'}.")
    if not NAME.fullmatch(Spec.parse(text).name):
        raise InputError(f"Expected a name of small letters, digits and hyphens, but got {Spec.parse(text).name!r}.")
    beside = _weights(file, weights or [])
    chosen = protocols.load(protocol)
    store = Store(out.with_name(out.stem + "-records"))
    attacks = ",".join(chosen.attacks)
    setting = chosen.setting(chosen.seeds[0])
    planned = plan(setting, attacks, text, chosen.tiers, chosen.seeds, chosen.effort, store)
    tasks = [task for task in planned.tasks if not task.latency]  # times of another machine cannot be verified
    whole = compute(replace(planned, tasks=tasks), store, [file]) == 0
    files = {f"code/{file.name}": file.read_bytes()} | beside
    for cell in chosen.cells(text):
        path = store.path(cell)
        if not path.is_file():
            raise InputError(f"The run was interrupted before {cell}. The same command goes on there.")
        files[f"records/{cell.slug}.json"] = path.read_bytes()
    for seed in chosen.seeds:
        learned = protect(testbed_of(chosen.setting(seed)), text, lambda share, doing: None).learned
        if learned:
            files[f"learned/seed-{seed}.safetensors"] = save_tensors(
                {name: one.detach().cpu().contiguous() for name, one in learned.items()}
            )
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
    """Files of weights by their names in the bundle; refused here already where they are none."""
    if not file.stem.isidentifier():
        raise InputError(f"Expected a file name of letters, digits and underscores, but got {file.name!r}.")
    found = {}
    for path in paths:
        try:
            content = path.read_bytes()
            tensors(path.name, content)
        except (OSError, RefusedError) as error:
            raise InputError(f"Expected weights as safetensors in {path}, but: {error}.") from error
        if path.resolve().parent != file.resolve().parent:
            raise InputError(f"Expected {path.name} beside {file}, since there the code will find it in the bundle.")
        found[f"code/{path.name}"] = content
    return found


def _manifest(file: Path, text: str, protocol: protocols.Protocol) -> Manifest:
    told = {"author": "", "link": "", "description": ""}
    stub = file.with_suffix(".toml")
    if stub.is_file():
        try:
            given = tomllib.loads(stub.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{stub} cannot be read: {error}.") from error
        unknown = sorted(set(given) - set(told))
        if unknown or not all(isinstance(one, str) for one in given.values()):
            raise InputError(f"Expected texts named {', '.join(told)} in {stub}, but got {json.dumps(given)}.")
        told |= given
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return Manifest(text, protocol.name, protocol.digest, told["author"], told["link"], told["description"], date)


def manifest_text(manifest: Manifest) -> str:
    """A manifest as JSON."""
    return json.dumps(asdict(manifest), indent=1, ensure_ascii=False) + "\n"
