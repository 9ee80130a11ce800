"""Records of ROC curves: schema, load and save."""

from __future__ import annotations

from dataclasses import field

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bench.core.files import write_text
from bench.errors import InputError
from bench.records.schema import Cell
from bench.records.store import Store


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Roc:
    """The ROC curves of one cell.

    Attributes:
        cell: whose images.
        clean, attacked: of the right class against all others, on the defended model (micro-average).
        rejected: of attacked against clean images by how far the defense is from rejecting them; None for
            one that never rejects.
        fingerprints: as in the cell's record; with others they are not those of its images.
    """

    cell: Cell
    clean: Trace
    attacked: Trace
    rejected: Trace | None = None
    fingerprints: dict[str, str] = field(default_factory=dict)


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Trace:
    """One ROC curve.

    Attributes:
        auc, low, high: the area under it with its 95 % interval, from resampled images.
        false_positives, true_positives: rates from 0 to 1 at falling thresholds, at most 101 points.
    """

    auc: float
    low: float
    high: float
    false_positives: tuple[float, ...]
    true_positives: tuple[float, ...]


def save_roc(store: Store, roc: Roc) -> None:
    """Writes it beside the records."""
    write_text(
        store.folder.joinpath("roc", *roc.cell.group, f"{roc.cell.slug}.json"), _ROC.dump_json(roc).decode() + "\n"
    )


def load_rocs(store: Store) -> list[Roc]:
    """Those of the records as they are now; raises InputError where a file is none."""
    found = []
    for path in sorted((store.folder / "roc").glob("*/*/*.json")):
        try:
            roc = _ROC.validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"{path} is no ROC curve. Delete it, or make it again with: bench curve --roc.") from error
        record = store.load(roc.cell)
        if record and record.fingerprints == roc.fingerprints:
            found.append(roc)
    return found


_ROC = TypeAdapter(Roc)
