"""The matrix: which cells there are, which of them are done, and in which order the others are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench.contracts import Attack, Defense, InputError, MissingExtraError, NotApplicableError, UniversalAttack
from bench.engine.provenance import fingerprints, inputs_of
from bench.engine.setting import Setting, model_name
from bench.engine.testbed import Testbed, testbed_of
from bench.plugins.registry import Kind, addresses, canonical_text, make_attack, make_defense
from bench.plugins.specs import split_specs
from bench.records.schema import TIERS, Cell, Effort, Latency, Outcome, Tier
from bench.records.store import Store

CONTROL = "none"
"""The defense that every other row is read against; it shares all its images with the oblivious tier."""

__all__ = ["TIERS", "Plan", "Task", "plan"]


@dataclass(frozen=True)
class Task:
    """Something to compute: a cell, or the latency of a defense (`cell.attack` and `cell.tier` then say nothing)."""

    cell: Cell
    setting: Setting
    latency: bool = False

    def __str__(self) -> str:
        cell = self.cell
        return f"latency × {cell.defense}" if self.latency else f"{cell.attack} × {cell.defense}, {cell.tier}"


@dataclass(frozen=True)
class Plan:
    """What to do, and what is there already.

    Attributes:
        tasks: to compute, in order: all defenses of one attack together, since they share its images.
        done: records that are as good as new.
        stale: why a cell that has a record is computed again.
        left_out: plugins that `all` would have named, with the reason why they are not in it.
    """

    tasks: list[Task]
    done: list[Outcome]
    latencies: list[Latency]
    stale: list[str]
    left_out: list[str]


def plan(
    setting: Setting,
    attacks: str,
    defenses: str,
    tiers: Sequence[Tier],
    seeds: Sequence[int],
    effort: Effort,
    store: Store,
) -> Plan:
    """Checks everything that was asked for, then crosses it; raises InputError before any work is done.

    Args:
        setting: data set, model and where they lie.
        attacks, defenses: their texts with commas between them, or `all`; the bare model is always there.
        tiers, seeds: as for a cell.
        effort: which presets of the attacks.
        store: where records lie.
    """
    attack_texts, without = _named("attack", attacks)
    defense_texts, without_too = _named("defense", defenses)
    if CONTROL not in defense_texts:
        defense_texts.insert(0, CONTROL)
    made = {text: make_attack(text, effort) for text in attack_texts}
    protected = {text: make_defense(text) for text in defense_texts}
    store.prepare()
    result = Plan([], [], [], [], without + without_too)
    for seed in seeds:
        testbed = testbed_of(replace(setting, seed=seed))
        _check(testbed, list(made.items()), list(protected.items()))
        for attack_text, attack in made.items():
            for defense_text, defense in protected.items():
                for tier in tiers:
                    cell = cell_of(testbed, attack_text, defense_text, tier, effort)
                    _sort_in(result, Task(cell, testbed.setting), fingerprints(attack, defense, testbed), store)
    _add_latencies(result, testbed, protected, store)
    return result


def cell_of(testbed: Testbed, attack: str, defense: str, tier: Tier, effort: Effort) -> Cell:
    """The cell of this testbed; folders and files keep their last name only."""
    setting = testbed.setting
    return Cell(
        dataset=testbed.name,
        model=model_name(setting),
        attack=attack,
        defense=defense,
        tier=tier,
        goal=setting.goal,
        effort=effort,
        images=setting.images or 0,
        seed=setting.seed,
    )


def _named(kind: Kind, text: str) -> tuple[list[str], list[str]]:
    """The texts, in canonical form and without repetition; `all` leaves out what needs a missing extra."""
    if text.strip() != "all":
        texts = [canonical_text(kind, item) for item in split_specs(text)]
        if not texts:
            raise InputError(f"Expected at least one {kind}, or 'all', but got {text!r}.")
        return list(dict.fromkeys(texts)), []
    named, left_out = [], []
    for name in addresses(kind):
        try:
            make_attack(name) if kind == "attack" else make_defense(name)
            named.append(name)
        except MissingExtraError as error:
            left_out.append(str(error))
    return named, left_out


def _check(testbed: Testbed, attacks: list[tuple[str, Attack]], defenses: list[tuple[str, Defense]]) -> None:
    """Whether the parameters fit the images; what makes no sense at all becomes a cell that says so."""
    plugins: list[tuple[str, Attack | Defense]] = [*attacks, *defenses]
    for text, plugin in plugins:
        try:
            plugin.check(testbed.image_shape, testbed.classes)
        except NotApplicableError:
            continue
        except ValueError as error:
            raise InputError(f"{text} does not fit {testbed.name}: {error}") from error
        if isinstance(plugin, UniversalAttack) and plugin.learns and not len(testbed.dataset.train):
            raise InputError(
                f"{text} learns from training images, but {testbed.name} has none. For a folder of images give "
                f"train=FRACTION or train=FOLDER, as in folder:PATH,train=0.3."
            )


def _sort_in(plan: Plan, task: Task, inputs: dict[str, str], store: Store) -> None:
    """A cell is done if its record is there, is `ok`, and was made from these very inputs."""
    record = store.load(task.cell)
    if record is None:
        plan.tasks.append(task)
        return
    changed = [name for name, value in inputs.items() if record.fingerprints.get(name) != value]
    if record.status == "ok" and not changed:
        plan.done.append(record)
        return
    if record.status == "ok":
        plan.stale.append(f"{task}: stale, since it was computed with another {', '.join(changed)}")
    plan.tasks.append(task)


def _add_latencies(plan: Plan, testbed: Testbed, defenses: dict[str, Defense], store: Store) -> None:
    """One timing for each defense whose record is missing or stale."""
    known = {(one.dataset, one.model, one.defense): one for one in store.latencies()}
    for text, defense in defenses.items():
        cell = cell_of(testbed, "", text, "oblivious", "standard")
        record = known.get((cell.dataset, cell.model, cell.defense))
        if record and record.fingerprints == inputs_of(defense, testbed):
            plan.latencies.append(record)
        else:
            plan.tasks.append(Task(cell, testbed.setting, latency=True))
