"""Settings and cells: what a run reads on this machine, and what records call it; both directions are here only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from operator import methodcaller
from pathlib import Path

from pydantic import ValidationError

from bench.contracts import Classifier, InputError, Plugin
from bench.core.files import content_hash
from bench.core.identity import former_identities, identity_of, without_hashes
from bench.data.load import Dataset, load_dataset
from bench.models import canonical_model, preparation_of
from bench.plugins.specs import Spec, parse_value, write_value
from bench.records.schema import Cell, Effort, Precision, Tier, first_problem

_IDENTITY = re.compile(r"[^,=;:+@]+@[0-9a-f]{8}(?=[,;+]|$)")


@dataclass(frozen=True, eq=False)
class InMemory:
    """Images and a model that are no files and have no name that loads them."""

    dataset: Dataset
    model: Classifier


@dataclass(frozen=True)
class Setting:
    """What a run reads and where it computes; what it computes are cells.

    Attributes:
        dataset, model: their texts, with paths of this machine.
        images: how many, None for all.
        goal: as `Cell.goal`.
        seed: of every random number.
        weights: a file with the model's weights, or None.
        mean, std: normalisation inside the model, None for its own.
        device: where torch computes.
        batch_size: images attacked at once, None to choose by their size.
        precision: in which attacks ask the model; answers that count are float32.
        files: what records call the files that the attacks and defenses read, each with its path.
        memory: images and model, if they are in memory; `dataset` and `model` only name them then.
    """

    dataset: str
    model: str
    images: int | None = None
    goal: str = "untargeted"
    seed: int = 0
    weights: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    device: str = "cpu"
    batch_size: int | None = None
    precision: Precision = "float32"
    files: tuple[tuple[str, Path], ...] = ()
    memory: InMemory | None = None

    def local(self, text: str) -> str:
        """The text of an attack or a defense of a cell, with paths of this machine."""
        for name, path in self.files:
            text = text.replace(name, str(path))
        return text


def data_text(dataset: str, model: str) -> str:
    """The text of a data set with the preparation that its model wants, if it is a folder and says nothing of it."""
    spec = Spec.parse(dataset)
    given = dict(spec.parameters)
    if spec.name != "folder" or given.keys() & {"resize", "crop"}:
        return dataset
    return str(Spec(spec.name, spec.first, tuple(sorted((preparation_of(model) | given).items()))))


def name_files(text: str, plugin: Plugin) -> tuple[str, dict[str, Path]]:
    """The text of an attack or a defense as cells have it, and the files that it names, by their names there."""
    declared, files = set(plugin.files()), dict[str, Path]()

    def name(path: Path) -> str | None:
        return _add(path, files) if path in declared or (path.is_absolute() and path.exists()) else None

    return "+".join(_each_value(part, name) for part in Spec.parse_chain(text)), files


def model_text(setting: Setting) -> tuple[str, dict[str, Path]]:
    """The model as cells have it, with weights, mean and std, and the files and folders that it names."""
    if setting.memory:
        return setting.model, {}
    files = dict[str, Path]()

    def name(path: Path) -> str | None:
        return _add(path, files) if len(path.parts) > 1 and path.exists() else None

    spec = Spec.parse(_each_value(Spec.parse(canonical_model(setting.model)), name))
    pairs = dict(spec.parameters)
    if "classes" in pairs and Path(pairs["classes"]).is_file():
        pairs["classes"] = _add(Path(pairs["classes"]), files)
    if setting.weights:
        pairs["weights"] = _add(setting.weights, files)
    pairs |= {key: write_value(value) for key in ("mean", "std") if (value := getattr(setting, key))}
    return str(Spec(spec.name, spec.first, tuple(sorted(pairs.items())))), files


def cell_of(setting: Setting, dataset: Dataset, attack: str, defense: str, tier: Tier, effort: Effort) -> Cell:
    """The cell of a setting; raises InputError if a text cannot stand in a record.

    Args:
        setting: where the inputs are.
        dataset: that of the setting.
        attack, defense: their texts as `name_files` returns them.
        tier, effort: as for a cell.
    """
    try:
        return Cell(
            dataset=dataset.name,
            model=model_text(setting)[0],
            attack=attack,
            defense=defense,
            tier=tier,
            goal=setting.goal,
            effort=effort,
            images=setting.images or 0,
            seed=setting.seed,
        )
    except ValidationError as error:
        raise InputError(f"These texts cannot stand in a record: {first_problem(error)}.") from error


def former_names(setting: Setting, dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """What cells call the files and folders of a setting now, and called them before their content changed."""
    paths = {**dataset.folders, **model_text(setting)[1], **dict(setting.files)}
    former = {name: former_identities(path, name) for name, path in paths.items()}
    return {name: others for name, others in former.items() if others}


def former_cells(cell: Cell, names: Mapping[str, tuple[str, ...]]) -> Iterator[Cell]:
    """The cells that this one replaces, since their files have changed; `names` as `former_names` returns them."""
    text = str(cell)
    present = [name for name in names if name in text]
    for others in product(*((name, *names[name]) for name in present)):
        former = cell
        for name, other in zip(present, others, strict=True):
            former = former.with_texts(methodcaller("replace", name, other))
        if former != cell:
            yield former


def setting_of(cell: Cell, dataset: str | None, weights: Path | None, device: str) -> Setting:
    """The setting that a cell was computed in.

    Args:
        cell: of a record.
        dataset: where its images are, if they are in a folder; by default in one of its name in the current folder.
        weights: where the model's weights are, if they are in a file; by default likewise.
        device: where to compute.

    Raises:
        InputError: a file or folder is missing, or is another one than the cell's.
    """
    text = dataset or without_hashes(cell.dataset)
    try:
        actual = load_dataset(text).name
    except InputError as error:
        raise error if dataset else InputError(f"{error} Pass the data set with --dataset.") from error
    if cell.dataset not in (actual, without_hashes(actual)):
        raise InputError(
            f"Expected the data set {cell.dataset}, but {text} is {actual}. Pass its folder with --dataset."
        )
    spec = Spec.parse(cell.model)
    inside = dict(spec.parameters)
    if _is_file(inside.get("weights", "")):
        name = inside.pop("weights")
        weights = _find(name, weights, "Pass the model's weights with --weights")
    elif weights:
        raise InputError(f"Expected no weights for {cell.model}, but got {weights}. Leave out --weights.")
    norms = {key: parse_value(inside.pop(key), tuple[float, ...], key) for key in ("mean", "std") if key in inside}
    advice = "Run the command in the folder that holds it"
    names = _IDENTITY.findall(f"{cell.attack},{cell.defense},{Spec(spec.name, spec.first, tuple(inside.items()))}")
    files = tuple((name, _find(name, None, advice)) for name in names)
    setting = Setting(text, "", cell.images or None, cell.goal, cell.seed, weights, **norms, device=device, files=files)
    return replace(setting, model=setting.local(str(Spec(spec.name, spec.first, tuple(inside.items())))))


def _find(name: str, path: Path | None, advice: str) -> Path:
    """The file or folder that a cell names; raises InputError if it is not there or another one."""
    path = path or Path(without_hashes(name))
    if not path.exists():
        raise InputError(f"Expected the file {name}, but there is no {path}. {advice}.")
    actual = identity_of(path, content_hash(path), without_hashes(name))
    if name not in (actual, without_hashes(actual)):
        raise InputError(f"Expected the file {name}, but {path} has another content ({actual}). {advice}.")
    return path


def split_weights(model: str) -> tuple[str, Path | None]:
    """The model's text without its file of weights, and that file: `resnet20:weights=w.pt` is `resnet20` and `w.pt`."""
    spec = Spec.parse(model)
    inside = dict(spec.parameters)
    if not _is_file(inside.get("weights", "")):
        return model, None
    path = Path(inside.pop("weights"))
    return str(Spec(spec.name, spec.first, tuple(inside.items()))), path


def has_weights(model: str, weights: Path | None) -> bool:
    """Whether the model of a cell has the weights in this file, or needs no file if there is none."""
    name = dict(Spec.parse(model).parameters).get("weights", "")
    if weights is None or not _is_file(name):
        return weights is None and not _is_file(name)
    identity = identity_of(weights, content_hash(weights))
    return name in (identity, without_hashes(identity))


def _is_file(weights: str) -> bool:
    """Whether a model's weights are a file, not the name of weights that its library knows."""
    return "." in weights or bool(_IDENTITY.fullmatch(weights))


def _add(path: Path, files: dict[str, Path]) -> str:
    """Adds a file or folder under its name in records, which is returned."""
    name = identity_of(path, content_hash(path))
    files[name] = path
    return name


def _each_value(spec: Spec, name: Callable[[Path], str | None]) -> str:
    """A text with names in place of the paths in its values."""
    pairs = tuple((key, _each_path(value, name)) for key, value in spec.parameters)
    return str(Spec(spec.name, _each_path(spec.first, name) if spec.first else None, pairs))


def _each_path(value: str, name: Callable[[Path], str | None]) -> str:
    """A value with names in place of paths: of itself, of items between semicolons, and behind `@` or `local-dir:`."""

    def named(item: str) -> str:
        front, mark, path = item.partition("local-dir:" if item.startswith("local-dir:") else "@")
        return name(Path(item)) or (front + mark + (name(Path(path)) or path) if mark else item)

    return ";".join(named(item) for item in value.split(";"))
