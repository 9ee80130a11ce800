"""Which records are stale, as far as records and code can tell without the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.plugins.registry import Kind
from bench.records.schema import Cell, Latency, Outcome
from bench.report.plugin_docs import about

_SHARED = ("data", "training", "weights", "protocol")
"""Fingerprints in which all records of a data set, model, number of images and seed must agree."""
_Key = tuple[str, str, int, int, str]


def stale_cells(outcomes: Iterable[Outcome]) -> dict[Cell, str]:
    """Cell -> what has changed since it was computed; cells that nothing speaks against are not in it.

    The code of a plugin is compared with the one that is installed here, if it comes with the benchmark; all else
    with the newest record that shares it.
    """
    every = [one for one in outcomes if one.fingerprints]
    newest: dict[_Key, str] = {}
    for outcome in sorted(every, key=lambda one: one.date):
        newest |= {_key(outcome, name): value for name, value in outcome.fingerprints.items() if name in _SHARED}
    found = {one.cell: _changed(one, newest) for one in every}
    return {cell: f"computed with another {' and '.join(names)}" for cell, names in found.items() if names}


def stale_time(latency: Latency) -> bool:
    """Whether the defense, if it comes with the benchmark, was timed with other code than is installed here."""
    return _other_code("defense", latency.defense, latency.fingerprints)


def _changed(outcome: Outcome, newest: dict[_Key, str]) -> list[str]:
    told = outcome.fingerprints
    names = [name for name in _SHARED if name in told and newest[_key(outcome, name)] != told[name]]
    named: dict[Kind, str] = {"attack": outcome.cell.attack, "defense": outcome.cell.defense}
    for kind, text in named.items():
        if _other_code(kind, text, told):
            names.append(f"code of the {kind}")
    return names


def _other_code(kind: Kind, text: str, told: Mapping[str, str]) -> bool:
    now = about(kind, text).fingerprint
    return bool(now) and told.get(kind, now) != now


def _key(outcome: Outcome, name: str) -> _Key:
    cell = outcome.cell
    return cell.dataset, cell.model, cell.images, cell.seed, name
