"""How numbers and names look: each number is formatted here, once, for every kind of table."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bench.metrics import Estimate
from bench.outcome import TIERS, Cell, Outcome
from bench.specs import Spec

NONE = "–"
_STATUS = {"out-of-memory": "memory", "not-applicable": "n/a"}
_ARXIV = re.compile(r"(?<![\d.])\d{4}\.\d{4,5}(?![\d.])")


@dataclass(frozen=True)
class Shown:
    """One entry of a table, ready to print.

    Attributes:
        text: the number or the word.
        interval: its 95 % interval, "" if none.
        suffix: what belongs behind the number, such as "of 120".
        value: what a sort goes by, None for entries without a number.
        band: low, value and high in percent of a 0 to 100 scale, for accuracies.
        title: the long form, for whoever asks.
        note: number of its footnote, 0 if none.
    """

    text: str = NONE
    interval: str = ""
    suffix: str = ""
    value: float | None = None
    band: tuple[float, float, float] | None = None
    title: str = ""
    note: int = 0

    def noted(self, note: int) -> Shown:
        """The same with a footnote."""
        return replace(self, note=note)

    def bound(self, sign: str, why: str) -> Shown:
        """The same as a bound (`sign` is ≤ or ≥), with the reason why it is no more than that."""
        return self if self.value is None else replace(self, text=f"{sign} {self.text}", title=why)


def share(estimate: Estimate | None, count: bool = False) -> Shown:
    """A share in percent; with `count` the number of images that it is of stands behind it."""
    if estimate is None:
        return Shown()
    if estimate.n == 0:
        return Shown(suffix="of 0" if count else "", title="No image counts here.")
    low, value, high = (round(100 * one, 1) for one in (estimate.low, estimate.value, estimate.high))
    return Shown(
        text=f"{value:.1f}",
        interval=f"{low:.1f}–{high:.1f}",
        suffix=f"of {estimate.n}" if count else "",
        value=100 * estimate.value,
        band=(low, value, high),
        title=f"{value:.1f} % of {estimate.n} images, 95 % interval {low:.1f} to {high:.1f}",
    )


def points(estimate: Estimate | None) -> Shown:
    """A difference of two shares in percentage points."""
    if estimate is None or estimate.n == 0:
        return Shown()
    low, value, high = (signed(100 * one) for one in (estimate.low, estimate.value, estimate.high))
    return Shown(
        text=value,
        interval=f"{low} to {high}" if estimate.low < 0 else f"{low}–{high}",
        value=100 * estimate.value,
        title=f"{value} points over {estimate.n} images, paired 95 % interval {low} to {high}",
    )


def signed(value: float) -> str:
    """One decimal, with a true minus and no minus before zero."""
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def ratio(times: Mapping[str, float], machine: str) -> Shown:
    """How many times as long a defended model takes, from the times of Latency for one batch size."""
    value = times.get("ratio", math.nan)
    if math.isnan(value):
        return Shown()
    title = f"{times.get('defended', math.nan):.3g} ms an image, bare {times.get('bare', math.nan):.3g} ms ({machine})"
    return Shown(f"{value:.2f}×", value=value, title=title)


def duration(seconds: float) -> Shown:
    """A time that a reader can grasp."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return Shown(f"{seconds / length:.3g} {unit}", value=seconds, title=f"{seconds:.0f} s")
    return Shown(f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s", value=seconds)


def failed(status: str, reason: str, note: int = 0) -> Shown:
    """A cell that has no number says so."""
    return Shown(_STATUS.get(status, status), title=f"{status}: {plain(reason)}", note=note)


def lost(outcome: Outcome) -> str:
    """A record that fits no board, in one line."""
    return f"{plain(str(outcome.cell))}: {outcome.status}: {plain(outcome.reason)}"


def plain(text: str) -> str:
    """Text without line ends and other control characters, so that it cannot leave its place."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def inert(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{plain(text)}" if plain(text)[:1] in tuple("=+-@") else plain(text)


def arxiv(paper: str) -> str | None:
    """The address of the paper if its arXiv id is named."""
    found = _ARXIV.search(paper)
    return f"https://arxiv.org/abs/{found[0]}" if found else None


def commands(cells: Iterable[Cell]) -> list[str]:
    """As few commands as compute exactly these cells, beside the bare model, which every command computes.

    Two cells share one if all that it crosses is wanted. Folders have to be written out by whoever calls it.
    """
    found: list[str] = []
    crossed: dict[Cell, list[Cell]] = {}
    for cell in dict.fromkeys(cells):
        if cell.attack.startswith("imported:"):
            found.append(command(cell))
        else:
            crossed.setdefault(replace(cell, attack="", defense="", tier=TIERS[0], seed=0), []).append(cell)
    for group in crossed.values():
        options = [(one.attack, one.defense, one.tier, str(one.seed)) for one in group]
        for attacks, defenses, tiers, seeds in _crossed(options):
            tier = tiers[0] if len(tiers) == 1 else "both"
            cell = replace(group[0], attack=",".join(attacks), defense=",".join(defenses))
            found.append(command(cell, tier, ",".join(seeds)))
    return found


_Product = tuple[tuple[str, ...], ...]
"""Attacks, defenses, tiers and seeds, all crossed."""


def _crossed(points: Iterable[tuple[str, ...]]) -> list[_Product]:
    """Points as products of sets: each in one of them, and nothing else in any."""
    products: list[_Product] = [tuple((word,) for word in point) for point in points]
    for axis in (2, 0, 1, 3):
        merged: dict[_Product, tuple[str, ...]] = {}
        for one in products:
            rest = one[:axis] + one[axis + 1 :]
            merged[rest] = merged.get(rest, ()) + one[axis]
        products = [(*rest[:axis], words, *rest[axis:]) for rest, words in merged.items()]
    return products


def command(cell: Cell, tier: str = "", seeds: str = "") -> str:
    """The command that computes a cell, or the cells of these tiers and seeds; folders have to be written out."""
    if cell.attack.startswith("imported:"):
        name, tier = shlex.quote(cell.attack.removeprefix("imported:")), cell.tier
        return f"bench import-attack FILE --defense {shlex.quote(cell.defense)} --attack-name {name} --tier {tier}"
    model = Spec.parse(cell.model)
    given = {key: value for key, value in model.parameters if key in ("mean", "std") or _is_file(key, value)}
    rest = tuple(pair for pair in model.parameters if pair[0] not in given)
    options = {
        "attack": cell.attack,
        "defense": cell.defense,
        "dataset": cell.dataset,
        "model": str(Spec(model.name, model.first, rest)),
        **given,
        "images": str(cell.images or "all"),
        "tier": tier or cell.tier,
        "effort": cell.effort,
        "seed": seeds or str(cell.seed),
    }
    words = [f"--{name} {shlex.quote(plain(value))}" for name, value in options.items()]
    kind, _, target = cell.goal.partition(":")
    if kind == "targeted":
        words.append(f"--target {shlex.quote(plain(target))}" if target else "--targeted")
    return "bench run " + " ".join(words)


def _is_file(key: str, value: str) -> bool:
    """Whether a model's weights are a file, not the name of weights that its library knows."""
    return key == "weights" and "." in value
