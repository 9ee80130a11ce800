"""Contract checks of a plugin: a list of small named checks that anyone can run on an attack or a defense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch

from bench.checks.attacks import OF_ATTACKS
from bench.checks.case import BrokenContractError, Case, expect
from bench.checks.defenses import OF_DEFENSES
from bench.contracts import Attack, Defense, InputError, answers
from bench.plugins.registry import add_file, addresses, make_attack, make_defense
from bench.plugins.specs import Spec


def is_a_frozen_dataclass(case: Case) -> None:
    """Parameters are the fields of a frozen dataclass."""
    plugin: Any = case.plugin
    expect(is_dataclass(plugin), f"expected a dataclass, but {type(plugin).__name__} is none")
    expect(plugin.__dataclass_params__.frozen, f"expected @dataclass(frozen=True) on {type(plugin).__name__}")
    expect(hash(plugin) == hash(plugin), "expected parameters that can be hashed")


def says_what_it_is(case: Case) -> None:
    """It has a title and a first line of its own."""
    plugin = case.plugin
    expect(bool(plugin.title), "expected a `title` for the tables")
    expect(bool((type(plugin).__doc__ or "").split("(")[0].strip()), "expected a docstring")
    own = (type(plugin).__doc__ or "").startswith(f"{type(plugin).__name__}(")
    expect(not own, "expected a docstring written by its author; this one is the dataclass's own")


def global_random_numbers_stay_untouched(case: Case) -> None:
    """Randomness comes by argument alone."""
    import numpy as np

    def states() -> list[bytes]:
        numpy_state: Any = np.random.get_state()  # noqa: NPY002  # the global generator is what this is about
        return [
            torch.get_rng_state().numpy().tobytes(),
            numpy_state[1].tobytes() + bytes(str(numpy_state[2:]), "ascii"),
        ]

    before = states()
    if isinstance(case.plugin, Attack):
        case.attacked()
    else:
        answers(case.defense.protect(case.classifier, case.learned), case.images, case.streams)
    for name, old, new in zip(("torch", "NumPy"), before, states(), strict=True):
        expect(old == new, f"expected {name}'s global generator untouched; draw from `rng`")


COMMON: list[Callable[[Case], None]] = [
    is_a_frozen_dataclass,
    says_what_it_is,
    global_random_numbers_stay_untouched,
]


def checks_of(plugin: Attack | Defense) -> list[Callable[[Case], None]]:
    """The checks that a plugin has to pass."""
    return COMMON + (OF_ATTACKS if isinstance(plugin, Attack) else OF_DEFENSES)


def results(plugin: Attack | Defense) -> Iterator[tuple[str, str | None]]:
    """Runs every check; gives its name, and None or what is broken."""
    case = Case(plugin)
    for check in checks_of(plugin):
        try:
            check(case)
            yield check.__name__, None
        except Exception as error:  # a plugin may fail in any way, and each way is a finding
            told = str(error) if isinstance(error, BrokenContractError) else f"{type(error).__name__}: {error}"
            yield check.__name__, told


def plugins(name: str) -> list[tuple[str, Attack | Defense]]:
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


def report(name: str) -> int:
    """Prints the result of every check; returns the exit code, 1 where one failed."""
    from rich.console import Console

    console = Console(highlight=False)
    broken = 0
    for text, plugin in plugins(name):
        console.print(f"{text}:", style="bold", markup=False)
        for check, told in results(plugin):
            broken += told is not None
            line = f"  {'broken' if told else 'kept  '}  {check.replace('_', ' ')}" + (f": {told}" if told else "")
            console.print(line, style="red" if told else None, markup=False)
    return 1 if broken else 0
