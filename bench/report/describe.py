"""One record in words, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from bench.core.text import plain
from bench.records.command import command
from bench.records.samples import design_of
from bench.records.schema import Outcome, PluginRecord
from bench.report.boards import formatted_measures, provenance_summary


def describe(outcome: Outcome) -> str:
    """The cell, its numbers with intervals, their origin, and the command that computes it."""
    lines = [f"{key:<18} {plain(str(value))}" for key, value in asdict(outcome.cell).items()]
    lines += ["", f"{'status':<18} {outcome.status}{f': {plain(outcome.reason)}' if outcome.reason else ''}"]
    for kind, record in (("attack", outcome.attack), ("defense", outcome.defense)):
        lines += _plugin(kind, record) if record else []
    if outcome.facts:
        design = design_of(outcome.cell, outcome.defense)
        lines += ["", f"Percent of {len(outcome.facts.index)} images, with 95 % intervals:"]
        for name, number in formatted_measures([outcome.facts], design=design).items():
            interval = f"({number.interval})" if number.interval else ""
            lines.append(f"  {name.replace('_', ' '):<20} {number.text:>6} {interval:<18} {number.suffix}".rstrip())
    lines += _section("Queries for an attacked image:", outcome.queries)
    lines += _section("Training of the defense:", outcome.training)
    lines += _section("Seconds:", outcome.seconds)
    origin = provenance_summary([outcome])
    lines += _section("Provenance:", {key: ", ".join(values) for key, values in origin.items()})
    lines += ["", "Warnings:", *(f"  {plain(one)}" for one in outcome.warnings)] if outcome.warnings else []
    return "\n".join([*lines, "", command(outcome)])


def _plugin(kind: str, record: PluginRecord) -> list[str]:
    parameters = ", ".join(f"{key}={value}" for key, value in record.parameters.items())
    title = f"{record.title}{f' ({record.paper})' if record.paper else ''}"
    words = [plain(one) for one in (title, parameters, record.note) if one]
    return ["", *(f"{'' if place else kind:<18} {one}" for place, one in enumerate(words))]


def _section(title: str, values: Mapping[str, float | str]) -> list[str]:
    texts = {key: value if isinstance(value, str) else f"{value:g}" for key, value in values.items()}
    return ["", title, *(f"  {plain(key):<30} {plain(text)}" for key, text in texts.items())] if values else []
