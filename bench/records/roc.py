"""ROC curves of cells, beside their records."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass as checked

from bench.errors import InputError
from bench.records.schema import Cell, Share, first_problem
from bench.records.sealed import read_sealed, write_sealed
from bench.records.store import Store


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Trace:
    """A ROC curve.

    Attributes:
        auc, low, high: the area under it with its 95 % interval, from resampled images.
        false_positives, true_positives: rates from 0 to 1 at falling thresholds, at most 101 points.
    """

    auc: Share
    low: Share
    high: Share
    false_positives: tuple[Share, ...]
    true_positives: tuple[Share, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.false_positives) != len(self.true_positives):
            raise ValueError("expected as many false positives as true positives")
        return self


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Roc:
    """The ROC curves of a cell.

    Attributes:
        cell: whose images.
        clean, attacked: of the right class against all others, on the defended model (micro-average).
        rejected: of attacked against clean images, by how far the defense is from rejecting them; None if it never
            rejects.
        fingerprints: as in the cell's record; if they differ, the curves are of other images.
    """

    cell: Cell
    clean: Trace
    attacked: Trace
    rejected: Trace | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)


def save_roc(store: Store, roc: Roc) -> None:
    """Writes the curves of a cell beside its record."""
    write_sealed(_path(store, roc.cell), _ROC.dump_python(roc, mode="json"))


def load_rocs(store: Store) -> list[Roc]:
    """The curves of the records as they are now; raises InputError if a file does not hold curves."""
    rocs = []
    for path in sorted((store.folder / "roc").rglob("*.json")):
        try:
            roc = _ROC.validate_python(read_sealed(path))
        except ValidationError as error:
            raise InputError(f"{path} is not a ROC curve: {first_problem(error)}. {_AGAIN}.") from error
        if path != _path(store, roc.cell):
            raise InputError(f"{path} holds the curves of another cell: {roc.cell}. {_AGAIN}.")
        record = store.load(roc.cell)
        if record and record.fingerprints == roc.fingerprints:
            rocs.append(roc)
    return rocs


def _path(store: Store, cell: Cell) -> Path:
    return store.folder.joinpath("roc", *cell.group, f"{cell.slug}.json")


_ROC = TypeAdapter(Roc)
_AGAIN = "Delete it, or make it again with: bench curve --roc"
