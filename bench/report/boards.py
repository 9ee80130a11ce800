"""Records -> boards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.core.text import plain
from bench.records.metrics import MEASURES, clean_accuracy
from bench.records.schema import TIERS, Facts, Latency, Outcome
from bench.report.board import WORST, Board, Entry, Key, PluginLink, Row
from bench.report.columns import columns
from bench.report.evidence import Evidence
from bench.report.format import Shown, failed, points, share
from bench.report.grouping import Sample, settle
from bench.report.staleness import stale_time

_DIFFERENCES = ("delta", "adversarial_effect")
_BOUNDS = {"attacked_accuracy": "≤", "delta": "≥"}
"""What a worst case over too few attacks says."""
_SHARED = ("data", "training", "weights", "protocol")
"""Fingerprints in which the records of a board, of one seed, must agree."""


def make_boards(outcomes: Iterable[Outcome], latencies: Iterable[Latency] = ()) -> tuple[list[Board], list[Outcome]]:
    """All boards, those of the model with the most cells first, and the records that fit none.

    A record fits none if its attack could never be made.
    """
    settings, homeless = settle(outcomes)
    times = {(one.dataset, one.model, one.defense): one for one in latencies}
    cells = Counter((one.dataset, one.model) for one, samples in settings.items() for _ in samples)
    order = sorted(settings, key=lambda one: -cells[one.dataset, one.model])
    boards = [_board(Evidence(setting, settings, times)) for setting in order]
    return boards, homeless


def _board(evidence: Evidence) -> Board:
    entries, footnotes = _entries(evidence)
    made = columns(evidence, entries)
    rows = []
    for defense, rank, why in evidence.ranked():
        plugin = PluginLink.of(defense, evidence.records[defense])
        clean = share(clean_accuracy(*evidence.facts(defense)))
        cells = tuple(number(defense) for _, number in made)
        rows.append(Row(plugin, rank, why, evidence.bare(defense), clean, cells, tuple(evidence.flags[defense])))
    attacks = {
        tier: tuple(PluginLink.of(one, evidence.attack(one)) for one in evidence.attacks(tier)) for tier in TIERS
    }
    return Board(
        setting=evidence.setting,
        images=_images(evidence),
        classes=max(one.classes for one in evidence.outcomes),
        seeds=tuple(sorted({one.cell.seed for one in evidence.outcomes})),
        basis=evidence.basis,
        attacks=attacks,
        columns=tuple(column for column, _ in made),
        rows=tuple(rows),
        entries=entries,
        footnotes=tuple(footnotes),
        remarks=_remarks(evidence, [*(row.defense for row in rows), *attacks["oblivious"], *attacks["adaptive"]]),
    )


def _entries(evidence: Evidence) -> tuple[dict[Key, Entry], list[str]]:
    """The numbers of each cell and of the worst cases, and footnotes for what failed."""
    footnotes: list[str] = []
    entries: dict[Key, Entry] = {}
    for key, sample in sorted(evidence.samples.items(), key=lambda one: (*one[0][:2], TIERS.index(one[0][2]))):
        if sample.failures:
            footnotes.append(_cause(sample))
        entries[key] = entry_of(sample, len(footnotes) if sample.failures else 0)
    for (defense, tier), seeds in evidence.worst.items():
        found = numbers(list(seeds.values())) if seeds else {}
        missing = evidence.missing(defense, tier)
        if found and missing:
            why = f"Without a number for {', '.join(missing)}, which can only make it worse."
            found |= {name: found[name].bound(sign, why) for name, sign in _BOUNDS.items()}
        entries[defense, WORST, tier] = Entry(found, tuple(sorted(seeds)))
    return entries, footnotes


def entry_of(sample: Sample, note: int = 0) -> Entry:
    """The numbers of a cell, or how it failed."""
    if not sample.facts:
        first = sample.failures[0]
        return Entry({"attacked_accuracy": failed(first.status, first.reason, note)}, sample=sample)
    found = numbers(list(sample.facts.values()))
    found["attacked_accuracy"] = found["attacked_accuracy"].noted(note)
    return Entry(found, tuple(sorted(sample.facts)), _queries(sample), sample)


def numbers(seeds: Sequence[Facts]) -> dict[str, Shown]:
    """All measures that the facts of a cell allow, formatted."""
    found = {}
    for name, measure in MEASURES.items():
        estimate = measure(*seeds)
        if estimate is not None:
            counted = name in ("beta", "attack_success", "robustness")
            found[name] = points(estimate) if name in _DIFFERENCES else share(estimate, counted)
    return found


def _cause(sample: Sample) -> str:
    causes = sorted({f"{one.status}: {plain(one.reason)}" for one in sample.failures})
    seeds = f", seed {', '.join(str(one.cell.seed) for one in sample.failures)}" if sample.facts else ""
    return f"{sample.name}{seeds}: {'; '.join(causes)}"


def _queries(sample: Sample) -> str:
    """Queries for an attacked image, as the mean over the seeds."""
    asked = [one.queries for one in sample.outcomes if one.queries]
    words = []
    for name in ("forwards", "backwards"):
        values = [one[f"{name}_mean"] for one in asked if f"{name}_mean" in one]
        if values:
            words.append(f"{sum(values) / len(values):,.0f} {name}")
    return ", ".join(words)


def _images(evidence: Evidence) -> str:
    counts = sorted({len(facts.index) for one in evidence.defenses for facts in evidence.facts(one)})
    if not counts:
        return str(evidence.setting.images or "all")
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _remarks(evidence: Evidence, plugins: Sequence[PluginLink]) -> tuple[str, ...]:
    notes = {f"{one.text}: {one.note}" for one in plugins if one.note}
    seeds = sorted({one.cell.seed for one in evidence.outcomes})
    for key in _SHARED:
        known = [(one.cell.seed, one.fingerprints[key]) for one in evidence.outcomes if key in one.fingerprints]
        if len(set(known)) > len({seed for seed, _ in known}):
            notes.add(f"The records disagree in {key}: some are stale, and this table compares what it should not.")
    notes |= {
        f"{name}: its cells do not agree about {what}; some are stale, or from a machine that rounds differently."
        for name, what in _disagreements(evidence.outcomes)
    }
    timed = (evidence.times[one] for one in evidence.defenses)
    notes |= {
        f"{one.defense}: its times were measured with other code of it." for one in timed if one and stale_time(one)
    }
    if len(seeds) > 1:
        named = ", ".join(str(one) for one in seeds)
        notes.add(f"Seeds {named}: an image counts with its mean over the seeds, and intervals are over images.")
    return tuple(sorted(notes))


def _disagreements(outcomes: Iterable[Outcome]) -> set[tuple[str, str]]:
    """Defenses and attacks that were made more than once, each time another: (which, what tells)."""
    ends: dict[tuple[str, str, int], set[tuple[float, ...]]] = {}
    for one in outcomes:
        if one.facts:
            clean, bare = one.facts.defended_clean, one.facts.bare_attacked
            ends.setdefault((one.cell.defense, "clean images", one.cell.seed), set()).add(tuple(clean))
            ends.setdefault((one.cell.attack, "the bare model", one.cell.seed), set()).add(tuple(bare))
    return {(name, what) for (name, what, _), seen in ends.items() if len(seen) > 1}


def provenance(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, ...]]:
    """For what the records say of their origin: key -> the values that occur, and the span of days."""
    found: dict[str, set[str]] = {}
    for outcome in outcomes:
        told = outcome.provenance | {f"fingerprint of {key}": value for key, value in outcome.fingerprints.items()}
        for key, value in told.items():
            found.setdefault(plain(key), set()).add(plain(value))
    days = sorted({outcome.date[:10] for outcome in outcomes if outcome.date})
    ends = {"computed": tuple(dict.fromkeys((days[0], days[-1])))} if days else {}
    return {key: tuple(sorted(values)) for key, values in sorted(found.items())} | ends
