"""Contract checks of a plugin: a list of small named checks that anyone can run on an attack or a defense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from bench.checks.attacks import OF_ATTACKS
from bench.checks.case import BrokenContractError, Case, expect
from bench.checks.defenses import OF_DEFENSES
from bench.contracts import Attack, Defense, InputError, NotApplicableError, answers
from bench.engine.audit import AuditError
from bench.engine.interference import InterferenceError, unchanged
from bench.engine.protect import at_work
from bench.engine.run import evaluate
from bench.plugins.registry import add_file, addresses, make_attack, make_defense
from bench.plugins.specs import Spec
from bench.records.schema import TIERS, Cell
from bench.records.warnings import HIDDEN_INPUTS

_ATTACK, _DEFENSE = "fgsm", "gaussian"
"""What a plugin is run with: a defense with the one, an attack with the other."""


def is_a_frozen_dataclass(case: Case) -> None:
    """Parameters are the fields of a frozen dataclass."""
    plugin: Any = case.plugin
    expect(is_dataclass(plugin), f"expected {type(plugin).__name__} to be a dataclass")
    expect(plugin.__dataclass_params__.frozen, f"expected @dataclass(frozen=True) on {type(plugin).__name__}")
    expect(hash(plugin) == hash(plugin), "expected parameters that can be hashed")


def says_what_it_is(case: Case) -> None:
    """It has a title and a first line of its own."""
    plugin = case.plugin
    expect(bool(plugin.title), "expected a `title` for the tables")
    expect(bool((type(plugin).__doc__ or "").split("(")[0].strip()), "expected a docstring")
    own = (type(plugin).__doc__ or "").startswith(f"{type(plugin).__name__}(")
    expect(not own, "expected a docstring; this one comes from the dataclass")


def changes_nothing_that_others_use(case: Case) -> None:
    """The state of the process, other modules, images and weights stay as they are; randomness comes from `rng`."""
    with unchanged(case.testbed, [case.plugin]):
        if isinstance(case.plugin, Attack):
            _ = case.first_attack
        else:
            answers(case.defense.protect(case.classifier, case.learned.artifact), case.images, case.streams)


def runs_in_a_cell(case: Case) -> None:
    """It does what it must in a cell of `bench run`, for both kinds of attackers."""
    plugin, testbed = case.plugin, case.testbed
    try:
        plugin.check(testbed.image_shape, testbed.classes)
    except ValueError:  # it is not made for images like these
        return
    attack = plugin if isinstance(plugin, Attack) else make_attack(_ATTACK, "quick")
    if isinstance(plugin, Defense):
        protected = at_work(plugin, testbed, case.learned)
    else:
        protected = at_work(make_defense(_DEFENSE), testbed)
    for tier in TIERS:
        cell = Cell("toy", "toy", _ATTACK, _DEFENSE, tier, effort="quick")
        with unchanged(testbed, (attack, protected.defense), protected.model, protected.learned):
            try:
                facts = evaluate(cell, testbed, protected, lambda share, doing: None, attack).outcome.facts
            except NotApplicableError:
                return
        hidden = [text for name, (_, text) in HIDDEN_INPUTS.items() if facts and name in facts.noted]
        expect(not hidden, "; ".join(hidden))


COMMON: list[Callable[[Case], None]] = [
    is_a_frozen_dataclass,
    says_what_it_is,
    changes_nothing_that_others_use,
    runs_in_a_cell,
]


def checks_of(plugin: Attack | Defense) -> list[Callable[[Case], None]]:
    """The checks that a plugin has to pass."""
    return COMMON + (OF_ATTACKS if isinstance(plugin, Attack) else OF_DEFENSES)


def check_plugin(plugin: Attack | Defense) -> dict[str, str | None]:
    """Runs every check; check -> None if the plugin passes it, or else what is broken."""
    return dict(_check_one_by_one(plugin))


def _check_one_by_one(plugin: Attack | Defense) -> Iterator[tuple[str, str | None]]:
    case = Case(plugin)
    for check in checks_of(plugin):
        try:
            check(case)
            yield check.__name__, None
        except Exception as error:  # a plugin may fail in any way, and each way is a finding
            expected = isinstance(error, BrokenContractError | AuditError | InterferenceError)
            yield check.__name__, str(error) if expected else f"{type(error).__name__}: {error}"


def plugins_named(name: str) -> list[tuple[str, Attack | Defense]]:
    """The plugins that a text or a file names; attacks at their `quick` preset, which suffices for a contract."""
    made: list[tuple[str, Attack | Defense]] = []
    for text in add_file(Path(name)) if name.endswith(".py") else [name]:
        first = Spec.parse_chain(text)[0].name
        if first in addresses("attack"):
            made.append((text, make_attack(text, "quick")))
        elif first in addresses("defense"):
            made.append((text, make_defense(text)))
        else:
            known = sorted({*addresses("attack"), *addresses("defense")})
            raise InputError(f"No attack and no defense named {first!r}. Known: {', '.join(known)}.")
    return made


def print_checks(name: str) -> int:
    """Prints the result of every check; returns the exit code, 1 if one failed."""
    from rich.console import Console

    console, failed = Console(highlight=False), 0
    for text, plugin in plugins_named(name):
        console.print(f"{text}:", style="bold", markup=False)
        for check, fault in _check_one_by_one(plugin):
            failed += fault is not None
            line = f"  {'broken' if fault else 'kept  '}  {check.replace('_', ' ')}" + (f": {fault}" if fault else "")
            console.print(line, style="red" if fault else None, markup=False)
    return 1 if failed else 0
