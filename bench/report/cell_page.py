"""What the page of a cell shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.core.text import plain
from bench.records.format import Formatted
from bench.records.samples import Sample
from bench.records.schema import Cell, Tier
from bench.report.board import Board, Entry
from bench.report.urls import cell_url

MEASURE_LABELS = {
    "clean_accuracy": ("clean", "without an attack"),
    "attacked_accuracy": ("attacked", "of all images"),
    "delta": ("δ", "clean − attacked, in points"),
    "beta": ("β", "of the images lost without a defense"),
    "attack_success": ("ASR", "eligible images on which the attack succeeds"),
    "accuracy_8bit": ("8-bit", "attacked, rounded to 8 bits"),
    "adversarial_effect": ("beyond occlusion", "with grey in the attack's place − attacked, in points"),
    "rejection_clean": ("rejects clean", "these count as wrong"),
    "rejection_attacked": ("rejects attacked", "defended if the attack changed them and the clean ones pass"),
    "certified_accuracy": ("certified", "proven within the budget"),
    "covered": ("finds", "of the changed pixels, the share that the defense takes for attacked"),
    "covered_wrongly": ("covers wrongly", "of the image, the share that it takes for attacked by mistake"),
}
"""Measure -> its heading and what it means."""


@dataclass(frozen=True)
class CellPage:
    """A cell with all its seeds.

    Attributes:
        sample: its records.
        entry: its numbers.
        board: where it stands, None if its attack is unknown.
    """

    sample: Sample
    entry: Entry
    board: Board | None

    @property
    def cell(self) -> Cell:
        """The cell of the first seed."""
        return self.sample.cell

    @property
    def url(self) -> str:
        """The address of its page."""
        return cell_url(self.cell)


TierPair = Mapping[Tier, CellPage]
"""A cell under one attacker or both; they share a page."""


def tier_pairs(pages: Iterable[CellPage]) -> list[TierPair]:
    """Cells that differ only in the tier, together."""
    pairs: dict[str, dict[Tier, CellPage]] = {}
    for page in pages:
        pairs.setdefault(page.url, {})[page.cell.tier] = page
    return list(pairs.values())


def measure_labels(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
    """The labels of the measures that these entries have."""
    return {name: label for name, label in MEASURE_LABELS.items() if any(name in one.numbers for one in entries)}


def costs(entries: Sequence[Entry]) -> dict[str, list[Formatted]]:
    """Queries, seconds and training costs: name -> the value of each entry."""
    values = [_costs(entry) for entry in entries]
    names = dict.fromkeys(name for one in values for name, number in one.items() if number.value)
    return {name: [one.get(name, Formatted()) for one in values] for name in names}


def _costs(entry: Entry) -> dict[str, Formatted]:
    """The costs of the first seed."""
    if entry.sample is None:
        return {}
    first = entry.sample.outcomes[0]
    numbers = {}
    for name in ("forwards", "backwards"):
        mean, most = (first.queries.get(f"{name}_{which}", 0.0) for which in ("mean", "max"))
        numbers[f"{name} for an image"] = Formatted(f"{mean:,.0f}", f"at most {most:,.0f}", value=mean)
    seconds = {"run, without cached parts" if key == "total" else key: value for key, value in first.seconds.items()}
    for kind, values in (("seconds", seconds), ("training", first.training)):
        for key, value in values.items():
            name = plain(key.replace("_mib", " (MiB)").replace("_", " "))
            numbers[f"{kind}, {name}"] = Formatted(f"{value:.4g}".replace("-", "−"), value=value)
    return numbers


def strongest_views(pages: Iterable[CellPage]) -> dict[str, int]:
    """View of the defense -> the number of images on which the strongest attack came through it, most first."""
    counts: Counter[str] = Counter()
    for facts in (facts for page in pages for facts in page.sample.facts.values()):
        for name, strongest in facts.noted.items():
            if _is_view(name):
                counts[name.removeprefix("through ")] += sum(value == 1 for value in strongest)
    return dict(counts.most_common())


@dataclass(frozen=True)
class BrokenBy:
    """How many images each stage of an attack broke, through each view; of a random defense those lost in most draws.

    Attributes:
        views: the columns; none if there is one view only.
        rows: stage -> a count for each view, and for all of them together.
    """

    views: tuple[str, ...]
    rows: Mapping[str, tuple[int, ...]]


def broken_by_stages(page: CellPage) -> BrokenBy | None:
    """For an attack in stages; None for another one."""
    counts: Counter[tuple[str, str]] = Counter()
    views: list[str] = []
    for facts in page.sample.facts.values():
        stages = facts.noted.get("stage")
        through = {name.removeprefix("through "): values for name, values in facts.noted.items() if _is_view(name)}
        views += [name for name in through if name not in views]
        for place, reached in enumerate(facts.reached):
            if stages and reached > 0.5:
                view = next((name for name, values in through.items() if values[place]), "")
                counts[_stage_name(stages[place]), view] += 1
    stages_found = sorted({stage for stage, _ in counts})
    if not counts:
        return None
    rows = {stage: [counts[stage, view] for view in views] for stage in stages_found}
    totals = {stage: sum(count for (one, _), count in counts.items() if one == stage) for stage in stages_found}
    return BrokenBy(tuple(views), {stage: (*rows[stage], totals[stage]) for stage in stages_found})


def _is_view(note: str) -> bool:
    return note.startswith("through ")


def _stage_name(number: float | None) -> str:
    """A stage may fail on its view, and what it made may fool the defended model all the same."""
    return "none of them on its view" if number is None else f"{number:.0f}"
