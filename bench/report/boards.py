"""Records -> boards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bench.core.text import plain
from bench.records.format import Formatted, format_difference, format_failure, format_share
from bench.records.metrics import IMAGES, MEASURES, Design, clean_accuracy, credited
from bench.records.samples import Sample, group_by_conditions
from bench.records.schema import TIERS, Cell, Facts, Latency, Outcome
from bench.report.board import WORST_CASE, Board, Entry, EntryKey, PluginLink, Row
from bench.report.columns import columns
from bench.report.evidence import Evidence
from bench.report.staleness import SHARED, is_stale_time

_DIFFERENCES = ("delta", "adversarial_effect")
_COUNTED = ("beta", "attack_success", "robustness")
_BOUNDS = {"attacked_accuracy": "≤", "delta": "≥"}
"""How a worst case that lacks an attack bounds the real one."""


def make_boards(outcomes: Iterable[Outcome], latencies: Iterable[Latency] = ()) -> tuple[list[Board], list[Outcome]]:
    """All boards, those of the model with the most cells first, and the failed records whose attack is unknown."""
    groups, unknown = group_by_conditions(outcomes)
    times = {(one.dataset, one.model, one.defense): one for one in latencies}
    cells = Counter((one.dataset, one.model) for one, samples in groups.items() for _ in samples)
    order = sorted(groups, key=lambda one: -cells[one.dataset, one.model])
    return [_board(Evidence(conditions, groups, times)) for conditions in order], unknown


def red_flags(outcomes: Sequence[Outcome], latencies: Sequence[Latency]) -> dict[Cell, tuple[str, ...]]:
    """The first cell of each sample -> the ids of the red flags that its row has on the board."""
    return {
        entry.sample.cell: tuple(flag.id for flag in row.raised if flag.colour == "red")
        for board in make_boards(outcomes, latencies)[0]
        for row in board.rows
        for (defense, _, _), entry in board.entries.items()
        if entry.sample and defense == row.defense.key
    }


def _board(evidence: Evidence) -> Board:
    entries, footnotes = _entries(evidence)
    numbered = columns(evidence, entries)
    rows = tuple(
        Row(
            defense=PluginLink.of(one.defense, evidence.records[one.defense]),
            rank=one.rank,
            section=one.section,
            why_unranked=one.why,
            baseline=evidence.is_bare(one.defense),
            clean=format_share(clean_accuracy(*evidence.facts(one.defense), design=evidence.design(one.defense))),
            cells=tuple(numbers.get(one.defense, Formatted()) for _, numbers in numbered),
            flags=tuple(evidence.flags[one.defense]),
        )
        for one in evidence.placements
    )
    attacks = {
        tier: tuple(PluginLink.of(one, evidence.attack(one)) for one in evidence.attacks(tier)) for tier in TIERS
    }
    return Board(
        conditions=evidence.conditions,
        images=_images(evidence),
        classes=max(one.classes for one in evidence.outcomes),
        seeds=tuple(sorted({one.cell.seed for one in evidence.outcomes})),
        basis=evidence.basis,
        attacks=attacks,
        columns=tuple(column for column, _ in numbered),
        rows=rows,
        entries=entries,
        benchmark=evidence.benchmark.about.title if evidence.benchmark else "",
        footnotes=tuple(footnotes),
        remarks=_remarks(evidence, [*(row.defense for row in rows), *attacks["oblivious"], *attacks["adaptive"]]),
    )


def _entries(evidence: Evidence) -> tuple[dict[EntryKey, Entry], list[str]]:
    """The numbers of each cell and of the worst cases, and a footnote for each cell with a failure."""
    footnotes: list[str] = []
    entries: dict[EntryKey, Entry] = {}
    for key, sample in sorted(evidence.samples.items(), key=lambda one: (*one[0][:2], TIERS.index(one[0][2]))):
        if sample.failures:
            footnotes.append(_footnote(sample))
        entries[key] = entry_of(sample, len(footnotes) if sample.failures else 0)
    for (defense, tier), seeds in evidence.worst.items():
        numbers = formatted_measures(list(seeds.values()), design=evidence.design(defense)) if seeds else {}
        missing = evidence.missing(defense, tier)
        if numbers and missing:
            why = f"No number against {', '.join(missing)}, which can only make it worse."
            numbers |= {name: numbers[name].as_bound(sign, why) for name, sign in _BOUNDS.items()}
        entries[defense, WORST_CASE, tier] = Entry(numbers)
    return entries, footnotes


def entry_of(sample: Sample, note: int = 0) -> Entry:
    """The numbers of a cell, or how it failed."""
    if not sample.facts:
        first = sample.failures[0]
        return Entry({"attacked_accuracy": format_failure(first.status, first.reason, note)}, sample=sample)
    return Entry(formatted_measures(list(sample.facts.values()), note, sample.design), _queries(sample), sample)


def formatted_measures(seeds: Sequence[Facts], note: int = 0, design: Design = IMAGES) -> dict[str, Formatted]:
    """All measures that the facts of a cell allow; accuracy under attack gets the footnote, and its spread."""
    numbers = {}
    for name, measure in MEASURES.items():
        estimate = measure(*seeds, design=design)
        if estimate is not None:
            number = format_difference(estimate) if name in _DIFFERENCES else format_share(estimate, name in _COUNTED)
            numbers[name] = number
            if name == "attacked_accuracy":
                numbers[name] = replace(number, note=note, spread=_spread(seeds) if design.trainings else "")
    return numbers


def _spread(seeds: Sequence[Facts]) -> str:
    """The accuracy under attack of each training, or the lowest and highest of many."""
    shares = [100 * float(credited(one, "defended_attacked").mean()) for one in seeds]
    if len(shares) < 2:
        return ""
    ends = shares if len(shares) <= 3 else sorted(shares)[:: len(shares) - 1]
    return f"{'by seed' if len(shares) <= 3 else 'seeds from'} {', '.join(f'{one:.1f}' for one in ends)}"


def _footnote(sample: Sample) -> str:
    causes = sorted({f"{one.status}: {plain(one.reason)}" for one in sample.failures})
    seeds = f", seed {', '.join(str(one.cell.seed) for one in sample.failures)}" if sample.facts else ""
    return f"{sample.name}{seeds}: {'; '.join(causes)}"


def _queries(sample: Sample) -> str:
    """Queries for an attacked image, as the mean over the seeds."""
    words = []
    for name in ("forwards", "backwards"):
        counts = [one.queries[f"{name}_mean"] for one in sample.outcomes if f"{name}_mean" in one.queries]
        words += [f"{sum(counts) / len(counts):,.0f} {name}"] if counts else []
    return ", ".join(words)


def _images(evidence: Evidence) -> str:
    counts = sorted({len(facts.index) for one in evidence.defenses for facts in evidence.facts(one)})
    if not counts:
        return str(evidence.conditions.images or "all")
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _remarks(evidence: Evidence, plugins: Sequence[PluginLink]) -> tuple[str, ...]:
    remarks = {f"{one.text}: {one.note}" for one in plugins if one.note}
    for name in SHARED:
        known = {(one.cell.seed, one.fingerprints[name]) for one in evidence.outcomes if name in one.fingerprints}
        if len(known) > len({seed for seed, _ in known}):
            remarks.add(f"The records disagree in {name}: some are stale, and this table compares what it should not.")
    remarks |= {
        f"{name}: its cells disagree about {what}; some are stale, or from a machine that rounds differently."
        for name, what in _disagreements(evidence.outcomes)
    }
    times = [time for time in evidence.times.values() if time]
    remarks |= {
        f"{plain(time.defense)}: timing failed: {time.status}: {plain(time.reason)}"
        for time in times
        if time.status != "ok"
    }
    if stale := [plain(time.defense) for time in times if is_stale_time(time)]:
        remarks.add(f"Times measured with different code: {', '.join(stale)}.")
    single: list[str] = []
    seeds = sorted({one.cell.seed for one in evidence.outcomes})
    if len(seeds) > 1:
        named = ", ".join(map(str, seeds))
        remarks.add(
            f"Seeds {named}: an image counts with its mean over the seeds. Intervals are over images, and for defenses "
            "that learn over their trainings, too."
        )
    if evidence.conditions.demonstration:
        remarks.add(
            "A demonstration: the images are crops of ten photographs, a class each, and no independent samples. "
            "Intervals are over photographs, and nothing is ranked."
        )
    for one in evidence.defenses:
        if names := [plain(sample.cell.attack) for sample in evidence.further(one)]:
            remarks.add(f"{plain(one)} met attacks that do not count in its worst case: {', '.join(names)}.")
        if any(sample.design.trainings and len(sample.facts) == 1 for sample in evidence.row(one)):
            single.append(plain(one))
    if single:
        remarks.add(f"Trained once, so that their intervals do not know the spread of trainings: {', '.join(single)}.")
    return tuple(sorted(remarks))


def _disagreements(outcomes: Iterable[Outcome]) -> set[tuple[str, str]]:
    """(plugin, on what) for defenses and attacks whose cells on the same images must agree and do not."""
    results: dict[tuple[str, str, int, tuple[int, ...]], set[tuple[float, ...]]] = {}
    for outcome in outcomes:
        if outcome.facts:
            clean, bare = tuple(outcome.facts.defended_clean), tuple(outcome.facts.bare_attacked)
            seed, images = outcome.cell.seed, tuple(outcome.facts.index)
            results.setdefault((outcome.cell.defense, "clean images", seed, images), set()).add(clean)
            results.setdefault((outcome.cell.attack, "the bare model", seed, images), set()).add(bare)
    return {(plain(name), what) for (name, what, *_), seen in results.items() if len(seen) > 1}


def provenance_summary(outcomes: Sequence[Outcome]) -> dict[str, tuple[str, ...]]:
    """The origin of records: each key with all its values, and the first and last day."""
    values: dict[str, set[str]] = {}
    for outcome in outcomes:
        origin = outcome.provenance | {f"fingerprint of {key}": value for key, value in outcome.fingerprints.items()}
        for key, value in origin.items():
            values.setdefault(plain(key), set()).add(plain(value))
    days = sorted({outcome.date[:10] for outcome in outcomes if outcome.date})
    span = {"computed": tuple(dict.fromkeys((days[0], days[-1])))} if days else {}
    return {key: tuple(sorted(texts)) for key, texts in sorted(values.items())} | span
