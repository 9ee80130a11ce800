"""Which records are stale, as far as records and code can tell without the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bench.plugins.registry import Kind
from bench.records.schema import Cell, Latency, Outcome
from bench.report.plugin_docs import plugin_docs

SHARED = ("data", "training", "weights", "protocol")
"""Fingerprints in which all records with the same data set, model, number of images and seed must agree."""


def stale_cells(outcomes: Iterable[Outcome]) -> dict[Cell, str]:
    """Stale cell -> what has changed since it was computed.

    The code of a built-in plugin is compared with the code installed here, everything else with the newest record that
    shares it.
    """
    newest: dict[tuple[str, str, int, int, str], str] = {}
    ordered = sorted(outcomes, key=lambda one: one.date)
    for outcome in ordered:
        newest |= {_key(outcome, name): outcome.fingerprints[name] for name in SHARED if name in outcome.fingerprints}
    stale = {}
    for outcome in ordered:
        prints = outcome.fingerprints
        changed = [name for name in SHARED if name in prints and newest[_key(outcome, name)] != prints[name]]
        plugins: dict[Kind, str] = {"attack": outcome.cell.attack, "defense": outcome.cell.defense}
        changed += [f"code of the {kind}" for kind, text in plugins.items() if _other_code(kind, text, prints)]
        if changed:
            stale[outcome.cell] = f"computed with different {' and '.join(changed)}"
    return stale


def is_stale_time(latency: Latency) -> bool:
    """Whether a built-in defense was timed with code that differs from the code installed here."""
    return _other_code("defense", latency.defense, latency.fingerprints)


def _other_code(kind: Kind, text: str, fingerprints: Mapping[str, str]) -> bool:
    installed = plugin_docs(kind, text).fingerprint
    return bool(installed) and fingerprints.get(kind, installed) != installed


def _key(outcome: Outcome, name: str) -> tuple[str, str, int, int, str]:
    cell = outcome.cell
    return cell.dataset, cell.model, cell.images, cell.seed, name
