"""The commands that compute given cells."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace

from bench.core.identity import without_hashes
from bench.core.text import plain
from bench.plugins.specs import Spec
from bench.records.schema import TIERS, Cell, Outcome

IN_MEMORY = "memory:"
"""How the names of images and models begin that were passed to `bench.evaluate`."""


def command(record: Cell | Outcome, tier: str = "", seeds: str = "") -> str:
    """The command that computes a cell, or the cells of these tiers and seeds, in the folder that holds its files."""
    cell = (record.cell if isinstance(record, Outcome) else record).with_texts(without_hashes)
    if cell.dataset.startswith(IN_MEMORY):
        return _call(cell)
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
    start = "bench run"
    if cell.attack.startswith("imported:"):
        attack = record.attack if isinstance(record, Outcome) else None
        origin = {"file": "FILE", "author": "AUTHOR", "within": "ATTACK"} | (attack.parameters if attack else {})
        start = f"bench import-attack {shlex.quote(plain(origin['file']))}"
        options["attack-name"] = options.pop("attack").removeprefix("imported:")
        options |= {key: str(origin[key]) for key in ("author", "within", "bundle") if key in origin}
    words = [f"--{name} {shlex.quote(plain(value))}" for name, value in options.items()]
    kind, _, target = cell.goal.partition(":")
    if kind == "targeted":
        words.append(f"--target {shlex.quote(plain(target))}" if target else "--targeted")
    return " ".join([start, *words])


def _call(cell: Cell) -> str:
    """The call that computes a cell whose model and images were in memory."""
    keys = ("attack", "defense", "tier", "effort", "seed")
    options = {key: getattr(cell, key) for key in keys}
    kind, _, target = cell.goal.partition(":")
    options |= {"target": target} if target else {"targeted": True} if kind == "targeted" else {}
    words = [
        f"{key}={plain(value)!r}" if isinstance(value, str) else f"{key}={value}" for key, value in options.items()
    ]
    return f"bench.evaluate(model, images, labels, {', '.join(words)})"


def commands(records: Iterable[Cell | Outcome]) -> list[str]:
    """As few commands as compute exactly these cells, and the bare model, which every command computes.

    Two cells share a command if all that it crosses is wanted.
    """
    lines: list[str] = []
    crossed: dict[Cell, list[Cell]] = {}
    for cell, record in {one.cell if isinstance(one, Outcome) else one: one for one in records}.items():
        if cell.attack.startswith("imported:") or cell.dataset.startswith(IN_MEMORY):
            lines.append(command(record))
        else:
            crossed.setdefault(replace(cell, attack="", defense="", tier=TIERS[0], seed=0), []).append(cell)
    for group in crossed.values():
        options = [(cell.attack, cell.defense, cell.tier, str(cell.seed)) for cell in group]
        for attacks, defenses, tiers, seeds in _crossed(options):
            tier = tiers[0] if len(tiers) == 1 else "both"
            cell = replace(group[0], attack=",".join(attacks), defense=",".join(defenses))
            lines.append(command(cell, tier, ",".join(seeds)))
    return lines


_Product = tuple[tuple[str, ...], ...]
"""Attacks, defenses, tiers and seeds, all crossed."""


def _crossed(points: Iterable[tuple[str, ...]]) -> list[_Product]:
    """Points as products of sets: each point in one of them, and no other point in any."""
    products: list[_Product] = [tuple((word,) for word in point) for point in points]
    for axis in (2, 0, 1, 3):
        merged: dict[_Product, tuple[str, ...]] = {}
        for product in products:
            rest = product[:axis] + product[axis + 1 :]
            merged[rest] = merged.get(rest, ()) + product[axis]
        products = [(*rest[:axis], words, *rest[axis:]) for rest, words in merged.items()]
    return products


def _is_file(key: str, value: str) -> bool:
    """Whether a parameter of a model is a file of weights, not the name of weights that its library knows."""
    return key == "weights" and "." in value


FEWEST_CURVE_VALUES = 3
"""A parameter needs so many values for a curve."""
