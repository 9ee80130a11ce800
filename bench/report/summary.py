"""What pages say once for several boards or cells, instead of once for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.core.text import plain
from bench.records.schema import Tier
from bench.report.board import Board, Entry, Row
from bench.report.cell_page import MEASURES, Page
from bench.report.flags import Flag
from bench.report.format import Shown

Place = tuple[Board, Row]
"""Where a defense stands."""
Pair = Mapping[Tier, Page]
"""The cells of both attackers, as far as they are there."""


@dataclass(frozen=True)
class Finding:
    """What there is to say of a defense.

    Attributes:
        id, colour, title: of the check that found it, "" where none did.
        text: what was found.
        where: the boards that it is about, "" where it is about all of them.
    """

    id: str
    colour: str
    title: str
    text: str
    where: str


def findings(places: Sequence[Place]) -> list[Finding]:
    """What the checks found on these boards, red first, and why there is no rank."""
    budgets = Counter(board.budget for board, _ in places)
    found: dict[tuple[str, str, str, str], list[str]] = {}
    for board, row in places:
        name = board.budget if budgets[board.budget] == 1 else f"{board.budget}, {board.brief}"
        for one in _found(row):
            found.setdefault(one, []).append(name)
    order = sorted(found, key=lambda one: (one[0] == "", one[1] != "red", one[0]))
    return [Finding(*one, where="; ".join(found[one]) if len(found[one]) < len(places) else "") for one in order]


def _found(row: Row) -> list[tuple[str, str, str, str]]:
    """(id, colour, title, text) of what there is to say of a row, beside what its badges say themselves."""
    told: list[tuple[str, str, str, str]] = [
        (flag.id, flag.colour, flag.title, flag.text) for flag in map(gist, row.badges)
    ]
    barring = ", ".join(flag.id for flag in row.badges if flag.bars)
    if row.why_unranked and not (barring and row.why_unranked.endswith(f" {barring}.")):
        told.append(("", "", "", row.why_unranked))
    return told or [("", "", "", "No check fired.")]


def gist(flag: Flag) -> Flag:
    """A flag; of warnings, which the pages of the cells tell, only that there are some."""
    return replace(flag, text="On the pages of the cells with a W.") if flag.id == "W" else flag


def raised(board: Board) -> list[tuple[Flag, str]]:
    """The checks that fired, red ones first, each once with the rows that share its finding."""
    found: dict[Flag, list[str]] = {}
    for flag, rows in board.raised:
        found.setdefault(gist(flag), []).append(rows)
    return [(flag, ", ".join(rows)) for flag, rows in found.items()]


def unchecked(places: Sequence[Place]) -> dict[str, list[str]]:
    """Why checks could not run: reason -> the checks, on whichever of the boards."""
    found: dict[str, set[str]] = {}
    for _, row in places:
        for flag in row.unchecked:
            found.setdefault(flag.text, set()).add(f"{flag.id} {flag.title}")
    return {reason: sorted(found[reason]) for reason in sorted(found, key=lambda one: min(found[one]))}


def pairs(pages: Iterable[Page]) -> list[Pair]:
    """Cells that share a page, together."""
    found: dict[str, dict[Tier, Page]] = {}
    for page in pages:
        found.setdefault(page.address, {})[page.key[2]] = page
    return list(found.values())


def measures(entries: Sequence[Entry]) -> dict[str, tuple[str, str]]:
    """Those of `MEASURES` that some of these cells have; 8 bits are no line of their own where they change nothing."""
    found = {name: told for name, told in MEASURES.items() if any(name in one.numbers for one in entries)}
    rounded, exact = ([one.numbers.get(name) for one in entries] for name in ("accuracy_8bit", "attacked_accuracy"))
    if any(rounded) and rounded == exact:
        del found["accuracy_8bit"]
        label, hint = found["attacked_accuracy"]
        found["attacked_accuracy"] = label, f"{hint}, rounded to 8 bits or not"
    return found


def costs(entries: Sequence[Entry]) -> dict[str, list[Shown]]:
    """What cells cost, and what their defense learned: what it is -> its value for each of them."""
    told = [_costs(entry) for entry in entries]
    names = dict.fromkeys(name for one in told for name, shown in one.items() if shown.value)
    return {name: [one.get(name, Shown()) for one in told] for name in names}


def views(pages: Iterable[Page]) -> dict[str, int]:
    """What an informed attacker worked through -> on how many images it gave the strongest attack; most first."""
    found: Counter[str] = Counter()
    for facts in (facts for page in pages for facts in page.sample.facts.values()):
        for name, won in facts.noted.items():
            if name.startswith("through "):
                found[name.removeprefix("through ")] += sum(value == 1 for value in won)
    return dict(found.most_common())


def _costs(entry: Entry) -> dict[str, Shown]:
    """Of the first of its seeds."""
    if entry.sample is None:
        return {}
    first = entry.sample.outcomes[0]
    found = {}
    for name in ("forwards", "backwards"):
        mean, most = (first.queries.get(f"{name}_{which}", 0.0) for which in ("mean", "max"))
        found[f"{name} for an image"] = Shown(f"{mean:,.0f}", f"at most {most:,.0f}", value=mean)
    timed = {"run, cached parts left out" if key == "total" else key: value for key, value in first.seconds.items()}
    for kind, values in (("seconds", timed), ("training", first.training)):
        for key, value in values.items():
            found[f"{kind}, {plain(key.replace('_', ' '))}"] = Shown(f"{value:.4g}".replace("-", "−"), value=value)
    return found
