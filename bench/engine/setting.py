"""A setting: where the inputs of a run lie, and the cell that it corresponds to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.contracts import InputError
from bench.models import canonical_model
from bench.plugins.specs import Spec, parse_value, write_value
from bench.records.schema import Cell


@dataclass(frozen=True)
class Setting:
    """Where the inputs of a run lie and where it computes; what is computed is told by its cells.

    Attributes:
        dataset, model: their texts, with the folders of this machine.
        images: how many, None for all.
        goal: as `Cell.goal`.
        seed: of every random number.
        weights: a file with the model's weights, or None.
        mean, std: normalisation inside the model, None for its own.
        device: where torch computes.
        batch_size: images attacked at once, None to choose by their size.
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


def setting_of(cell: Cell, dataset: str | None, weights: Path | None, device: str) -> Setting:
    """The setting that a cell was computed in; what lies in folders and files must be told again."""
    spec = Spec.parse(cell.model)
    beside = {key: value for key, value in spec.parameters if key in ("weights", "mean", "std")}
    inside = tuple((key, value) for key, value in spec.parameters if key not in beside)
    if "weights" in beside and weights is None:
        raise InputError(f"The cell's model has weights from {beside['weights']}: say where they lie with --weights.")
    norms = {key: parse_value(beside[key], tuple[float, ...], key) for key in ("mean", "std") if key in beside}
    return Setting(
        dataset=dataset or cell.dataset,
        model=str(Spec(spec.name, spec.first, inside)),
        images=cell.images or None,
        goal=cell.goal,
        seed=cell.seed,
        weights=weights,
        device=device,
        **norms,
    )


def without_folders(text: str) -> str:
    """The text of a data set with only the last name of every path in it: records name no folders of a machine."""
    spec = Spec.parse(text)
    pairs = tuple((key, Path(value).name if "/" in value or "\\" in value else value) for key, value in spec.parameters)
    return str(Spec(spec.name, Path(spec.first).name if spec.first else None, pairs))


def model_name(setting: Setting) -> str:
    """The model's text with what was given beside it: weights (the file's name), mean and std."""
    spec = Spec.parse(canonical_model(setting.model))
    given = {"weights": setting.weights.name if setting.weights else None}
    given |= {"mean": _colons(setting.mean), "std": _colons(setting.std)}
    pairs = dict(spec.parameters) | {key: value for key, value in given.items() if value}
    return str(Spec(spec.name, spec.first, tuple(sorted(pairs.items()))))


def _colons(values: tuple[float, ...] | None) -> str | None:
    return write_value(values) if values else None
