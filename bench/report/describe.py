"""One record in words, for a terminal."""

from __future__ import annotations

from dataclasses import asdict

from bench.core.text import plain
from bench.records.command import command
from bench.records.schema import Outcome, PluginRecord
from bench.report.boards import numbers, provenance
from bench.report.format import Shown


def describe(outcome: Outcome) -> str:
    """What a cell is, its numbers with intervals, where they come from, and the command that computes it."""
    lines = [f"{key:<18} {plain(str(value))}" for key, value in asdict(outcome.cell).items()]
    lines += ["", f"{'status':<18} {outcome.status}{f': {plain(outcome.reason)}' if outcome.reason else ''}"]
    for kind, record in (("attack", outcome.attack), ("defense", outcome.defense)):
        lines += _plugin(kind, record) if record else []
    if outcome.facts:
        lines += ["", f"Percent of {len(outcome.facts.index)} images, with 95 % intervals:"]
        lines += [_number(name, shown) for name, shown in numbers([outcome.facts]).items()]
    parts = {
        "Queries for an attacked image:": {key: f"{value:g}" for key, value in outcome.queries.items()},
        "Training of the defense:": {key: f"{value:g}" for key, value in outcome.training.items()},
        "Seconds:": {key: f"{value:g}" for key, value in outcome.seconds.items()},
        "Provenance:": {key: ", ".join(values) for key, values in provenance([outcome]).items()},
    }
    for title, told in parts.items():
        lines += ["", title, *(f"  {plain(key):<30} {plain(value)}" for key, value in told.items())] if told else []
    if outcome.warnings:
        lines += ["", "Warnings:", *(f"  {plain(one)}" for one in outcome.warnings)]
    return "\n".join([*lines, "", command(outcome.cell)])


def _plugin(kind: str, record: PluginRecord) -> list[str]:
    parameters = ", ".join(f"{key}={value}" for key, value in record.parameters.items())
    told = [f"{record.title}{f' ({record.paper})' if record.paper else ''}", parameters, record.note]
    return ["", *(f"{kind if not place else '':<18} {plain(one)}" for place, one in enumerate(told) if one)]


def _number(name: str, shown: Shown) -> str:
    interval = f"({shown.interval})" if shown.interval else ""
    return f"  {name.replace('_', ' '):<20} {shown.text:>6} {interval:<18} {shown.suffix}".rstrip()
