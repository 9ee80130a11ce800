"""Specs that vary one parameter, for curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from bench.errors import InputError
from bench.plugins.registry import Kind, load_plugin
from bench.plugins.specs import Spec, check_known, split_specs
from bench.records.command import FEWEST_CURVE_VALUES


def along(over: str, attacks: str, defenses: str) -> tuple[str, str]:
    """The texts of attacks and defenses with each value of a parameter.

    Args:
        over: `area=0.01,0.02,0.05`; a parameter of every one of the attacks, or else of some defense.
        attacks, defenses: as for a run, but no `all`: who varies a parameter names what has it.

    Raises:
        InputError: nothing has this parameter, or there are too few values for a curve.
    """
    name, _, listed = over.partition("=")
    values = [one.strip() for one in listed.split(",") if one.strip()]
    if len(set(values)) < FEWEST_CURVE_VALUES:
        raise InputError(f"Expected --over NAME=VALUE,… with at least {FEWEST_CURVE_VALUES} values, but got {over!r}.")
    attack_texts, defense_texts = split_specs(attacks), split_specs(defenses)
    if all(name in _parameters("attack", one) for one in attack_texts):
        return _varied(attack_texts, name, values), defenses
    able = [one for one in defense_texts if len(Spec.parse_chain(one)) == 1 and name in _parameters("defense", one)]
    if not able:
        known = {key for one in attack_texts for key in _parameters("attack", one)}
        check_known(name, known, f"parameter of {' or '.join(attack_texts)}")
        raise InputError(f"Not all of {attacks} have the parameter {name!r}. Draw one curve at a time.")
    rest = [one for one in defense_texts if one not in able]
    return attacks, ",".join([*rest, _varied(able, name, values)])


def _parameters(kind: Kind, text: str) -> set[str]:
    return {one.name for one in fields(load_plugin(kind, Spec.parse(text).name))}


def _varied(texts: Sequence[str], name: str, values: Sequence[str]) -> str:
    specs = [Spec.parse(text) for text in texts]
    return ",".join(
        str(replace(one, parameters=tuple(sorted({**dict(one.parameters), name: value}.items()))))
        for one in specs
        for value in values
    )
