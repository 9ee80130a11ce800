"""The matrix: which cells it has, which of them are done, and in which order the others are computed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from bench.contracts import Attack, Defense, InputError, MissingExtraError, NotApplicableError, UniversalAttack
from bench.core.identity import without_hashes
from bench.engine.inputs import Fingerprints, latency_fingerprints
from bench.engine.setting import Setting, cell_of, former_cells, former_names, model_text, name_files
from bench.engine.testbed import Testbed, testbed_of
from bench.plugins.registry import Kind, addresses, canonical_text, make_attack, make_defense
from bench.plugins.specs import split_specs
from bench.records.schema import TIERS, Cell, Effort, Latency, Outcome, Tier
from bench.records.store import Store

Retry = Literal["failed", "none", "all"]
UNDEFENDED = "none"
"""The defense that every other row is compared with; it shares all its images with the oblivious tier."""

__all__ = ["TIERS", "CellTask", "LatencyTask", "Plan", "Task", "plan"]


@dataclass(frozen=True, kw_only=True)
class _Origin:
    """What a task was planned from.

    Attributes:
        inputs: the fingerprints that its record will have.
        before: the version of its record when it was planned; with another one, another run has computed it.
        replaces: its records from before its files changed; they go when it has a new one.
    """

    inputs: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    before: str = field(default="", compare=False)
    replaces: tuple[Cell | Latency, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class CellTask(_Origin):
    """A cell to compute, in this setting."""

    cell: Cell
    setting: Setting

    def __str__(self) -> str:
        return f"{self.cell.attack} × {self.cell.defense}, {self.cell.tier}"

    @property
    def place(self) -> Cell:
        """Where its record is."""
        return self.cell

    @property
    def column(self) -> str:
        """The same for all cells that share the images that an attack crafts on the bare model."""
        return str(replace(self.cell, defense="", tier="oblivious"))


@dataclass(frozen=True)
class LatencyTask(_Origin):
    """A defense to time, in this setting; data set, model and defense as in a cell."""

    dataset: str
    model: str
    defense: str
    setting: Setting

    def __str__(self) -> str:
        return f"latency × {self.defense}"

    @property
    def place(self) -> Latency:
        """Where its record is."""
        return Latency(self.dataset, self.model, self.defense, {}, machine="")

    @property
    def column(self) -> str:
        """The same for all timings of a model."""
        return f"latency {self.dataset} {self.model}"


Task = CellTask | LatencyTask
P = TypeVar("P", Attack, Defense)


@dataclass(frozen=True)
class Plan:
    """What to do, and what is there already.

    Attributes:
        tasks: to compute, in order: all defenses of one attack together, since they share its images.
        done, latencies: records that need not be computed again.
        stale: why a cell that has a record is computed again.
        left_out: which plugins `all` does not include here, and why.
        warnings: what makes the results worth little.
    """

    tasks: list[Task] = field(default_factory=list)
    done: list[Outcome] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def cells(self) -> list[Cell]:
        """All of its cells: those that are done, and those to compute."""
        return [record.cell for record in self.done] + [task.cell for task in self.tasks if isinstance(task, CellTask)]

    @property
    def remarks(self) -> tuple[list[str], ...]:
        """What the user should read."""
        return self.warnings, self.left_out, self.stale


def plan(
    setting: Setting,
    attacks: str,
    defenses: str,
    tiers: Sequence[Tier],
    seeds: Sequence[int],
    effort: Effort,
    store: Store,
    elsewhere: bool = False,
    retry: Retry = "failed",
) -> Plan:
    """Checks everything that was asked for, then crosses it; raises InputError before any work is done.

    Args:
        setting: data set and model, and where they are.
        attacks, defenses: their texts with commas between them, or `all`; the bare model is always included.
        tiers, seeds: as for a cell.
        effort: which presets of the attacks.
        store: the records.
        elsewhere: whether it is computed on other machines: timings of any machine then count as done.
        retry: which records without numbers, made from the same inputs, are computed again: those of errors and limits,
            none, or also those that say that an attack makes no sense.
    """
    result = Plan()
    made_attacks = {text: make_attack(text, effort) for text in _named("attack", attacks, result.left_out)}
    names = _named("defense", defenses, result.left_out)
    made_defenses = {text: make_defense(text) for text in dict.fromkeys([*_first(names), *names])}
    made_attacks, attack_files = _with_names(made_attacks)
    made_defenses, defense_files = _with_names(made_defenses)
    setting = replace(setting, files=tuple((attack_files | defense_files).items()))
    store.prepare()
    testbed_of.cache_clear()  # its files may have changed
    for seed in seeds:
        own = replace(setting, seed=seed)
        testbed = testbed_of(replace(own, device="cpu"))  # planning needs no GPU
        result.warnings.extend(text for text in testbed.dataset.warnings if text not in result.warnings)
        former = former_names(testbed.setting, testbed.dataset)
        if not testbed.bare.trained and not result.warnings:
            result.warnings.append(
                f"{setting.model} is untrained: its weights are random. Pass weights, as with --weights FILE."
            )
        made_attacks = _fitting(made_attacks, attacks, testbed, result.left_out)
        made_defenses = _fitting(made_defenses, defenses, testbed, result.left_out)
        known = Fingerprints(testbed)
        for attack_text, attack in made_attacks.items():
            for defense_text, defense in made_defenses.items():
                for tier in tiers:
                    cell = cell_of(testbed.setting, testbed.dataset, attack_text, defense_text, tier, effort)
                    old = [cell for cell in former_cells(cell, former) if store.path(cell).is_file()]
                    inputs = known.of_cell(attack, defense, tier)
                    task = CellTask(cell, own, **_origin(cell, inputs, old, store))
                    _sort_in(result, task, store, retry)
                    _explain(result, task, former)
    _add_latencies(result, own, testbed, made_defenses, former, store, elsewhere, retry)
    return result


def joined(plans: Iterable[Plan]) -> Plan:
    """One plan of several, of different settings; what two of them say is said once."""
    result = Plan()
    for part in plans:
        result.tasks.extend(part.tasks)
        result.done.extend(part.done)
        result.latencies.extend(part.latencies)
        for lines, more in zip(result.remarks, part.remarks, strict=True):
            lines.extend(line for line in more if line not in lines)
    return result


def _with_names(made: dict[str, P]) -> tuple[dict[str, P], dict[str, Path]]:
    """Plugins by their texts in cells, and the files that they read by their names there."""
    named, files = dict[str, P](), dict[str, Path]()
    for text, plugin in made.items():
        name, own = name_files(text, plugin)
        named[name] = plugin
        files |= own
    return named, files


def _is_all(text: str) -> bool:
    return text.strip() == "all"


def _first(defenses: list[str]) -> list[str]:
    """The bare model stands in front where it is not named."""
    return [] if UNDEFENDED in defenses else [UNDEFENDED]


def _named(kind: Kind, text: str, left_out: list[str]) -> list[str]:
    """The texts, in canonical form and without repetition; `all` leaves out what needs a missing extra."""
    if not _is_all(text):
        texts = [canonical_text(kind, item) for item in split_specs(text)]
        if not texts:
            raise InputError(f"Expected at least one {kind}, or 'all', but got {text!r}.")
        return list(dict.fromkeys(texts))
    names = []
    for name in addresses(kind):
        try:
            make_attack(name) if kind == "attack" else make_defense(name)
            names.append(name)
        except MissingExtraError as error:
            left_out.append(str(error))
    return names


def _fitting(plugins: dict[str, P], asked: str, testbed: Testbed, left_out: list[str]) -> dict[str, P]:
    """The plugins that fit the images.

    `all` leaves out the others; one that was asked for by name is refused.
    """
    misfits = {text: reason for text, plugin in plugins.items() if (reason := _misfit(text, plugin, testbed))}
    if misfits and not _is_all(asked):
        raise InputError(next(iter(misfits.values())))
    left_out += [f"'all' leaves out {text}. {reason}" for text, reason in misfits.items()]
    return {text: plugin for text, plugin in plugins.items() if text not in misfits}


def _misfit(text: str, plugin: Attack | Defense, testbed: Testbed) -> str | None:
    """Why a plugin cannot be used on these images; what makes no sense at all becomes a cell that says so."""
    try:
        plugin.check(testbed.image_shape, testbed.classes)
    except NotApplicableError:
        return None
    except Exception as error:  # a plugin may fail in any way
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return f"{text} does not fit {testbed.name}: {reason}"
    if isinstance(plugin, UniversalAttack | Defense) and plugin.learns and not len(testbed.dataset.train):
        of_folder = "For a folder of images give train=FRACTION or train=FOLDER, as in folder:PATH,train=0.3."
        advice = "Pass training=(images, labels)." if testbed.setting.memory else of_folder
        return f"{text} learns from training images, but {testbed.name} has none. {advice}"
    return None


def _sort_in(plan: Plan, task: CellTask, store: Store, retry: Retry) -> None:
    """A cell is done if its record stays and was made from these very inputs."""
    record = store.load(task.cell)
    changed = [name for name, value in task.inputs if record and record.fingerprints.get(name) != value]
    if record and not changed and _stays(record, retry):
        plan.done.append(record)
        return
    if record and record.status == "ok":
        plan.stale.append(f"{task}: stale, since it was computed with another {', '.join(changed)}")
    plan.tasks.append(task)


def _stays(record: Outcome | Latency, retry: Retry) -> bool:
    final = record.status == "ok" or retry == "none"
    return final or (record.status == "not-applicable" and retry == "failed")


def _origin(
    place: Cell | Latency, inputs: Mapping[str, str], old: Sequence[Cell | Latency], store: Store
) -> dict[str, Any]:
    """What a task was planned from, as its arguments."""
    return {"inputs": tuple(inputs.items()), "before": store.version(place), "replaces": tuple(old)}


def _explain(plan: Plan, task: Task, files: Iterable[str]) -> None:
    """Says why a task replaces records from before these files changed."""
    if task.replaces and task in plan.tasks:
        plan.stale.append(f"{task}: stale, since {' and '.join(map(without_hashes, files))} changed")


def _add_latencies(
    plan: Plan,
    setting: Setting,
    testbed: Testbed,
    defenses: dict[str, Defense],
    former: Mapping[str, tuple[str, ...]],
    store: Store,
    elsewhere: bool,
    retry: Retry,
) -> None:
    """One timing for each defense whose record is missing, failed or stale."""
    known = {(record.dataset, record.model, record.defense): record for record in store.latencies()}
    model, _ = model_text(testbed.setting)
    for text, defense in defenses.items():
        record = known.get((testbed.name, model, text))
        inputs = latency_fingerprints(defense, testbed, None if elsewhere else setting.device)
        if record and _stays(record, retry) and inputs.items() <= record.fingerprints.items():
            plan.latencies.append(record)
        else:
            task = LatencyTask(testbed.name, model, text, setting)
            cells = former_cells(Cell(task.dataset, task.model, "", task.defense, "oblivious"), former)
            keys = [(cell.dataset, cell.model, cell.defense) for cell in cells]
            old = [known[key] for key in keys if key in known]
            task = replace(task, **_origin(task.place, inputs, old, store))
            plan.tasks.append(task)
            _explain(plan, task, former)
