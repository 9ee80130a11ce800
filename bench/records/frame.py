"""Records as a pandas frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bench.records.metrics import MEASURES
from bench.records.samples import design_of
from bench.records.schema import Cell, Latency, Outcome

if TYPE_CHECKING:
    import pandas


def records_frame(
    outcomes: Iterable[Outcome], latencies: Iterable[Latency] = (), more: Mapping[Cell, Mapping[str, Any]] | None = None
) -> pandas.DataFrame:
    """Records as a tidy frame: one row per cell, measures as shares from 0 to 1.

    Each measure has three columns (`delta`, `delta_low`, `delta_high`), and `beta_n` and `attack_success_n`
    hold the denominators. Cells without facts have their status and reason, and NaN for every measure. Times of the
    defense are in `latency_ms_B` and `latency_ratio_B` for batches of B images.

    Args:
        outcomes, latencies: the records.
        more: further columns of cells.
    """
    import pandas

    times = {(one.dataset, one.model, one.defense): _times(one) for one in latencies}
    rows = []
    for outcome in outcomes:
        cell = outcome.cell
        timed = times.get((cell.dataset, cell.model, cell.defense), {})
        rows.append(_flat(outcome) | timed | dict((more or {}).get(cell, {})))
    return pandas.DataFrame(rows)


def _times(latency: Latency) -> dict[str, float]:
    values: dict[str, float] = {}
    for size, times in latency.batches.items():
        known = (("ms", "defended"), ("ratio", "ratio"))
        values |= {f"latency_{name}_{size}": times[key] for name, key in known if key in times}
    return values


def _flat(outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {**asdict(outcome.cell), "status": outcome.status, "reason": outcome.reason}
    for kind, traits in (("attack", ("threat_model", "budget", "access")), ("defense", ("kind",))):
        record = getattr(outcome, kind)
        row[f"{kind}_title"] = record.title if record else ""
        row |= {name: record.traits.get(name) if record else None for name in traits}
    row["n"] = len(outcome.facts.index) if outcome.facts else 0
    for name, measure in MEASURES.items():
        estimate = measure(outcome.facts, design=design_of(outcome.cell, outcome.defense)) if outcome.facts else None
        values = (estimate.value, estimate.low, estimate.high) if estimate else (math.nan,) * 3
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
        if name in ("beta", "attack_success"):
            row[f"{name}_n"] = estimate.n if estimate else 0
    row |= {f"queries_{name}": value for name, value in sorted(outcome.queries.items())}
    row |= {f"training_{name}": value for name, value in sorted(outcome.training.items())}
    row |= {f"seconds_{name}": value for name, value in sorted(outcome.seconds.items())}
    return {**row, "date": outcome.date}
