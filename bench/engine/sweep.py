"""Texts of plugins that vary one parameter, for curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from bench.errors import InputError
from bench.plugins.registry import Kind, load_plugin
from bench.plugins.specs import Spec, check_known, split_specs
from bench.records.command import FEWEST_CURVE_VALUES


def along(over: str, attacks: str, defenses: str) -> tuple[str, str]:
    """The texts of attacks and defenses, repeated for each value of a parameter.

    Args:
        over: `area=0.01,0.02,0.05`; a parameter of all the attacks, or else of at least one defense.
        attacks, defenses: as for a run, but not `all`.

    Raises:
        InputError: no plugin has this parameter, or there are too few values for a curve.
    """
    name, _, listed = over.partition("=")
    values = [value.strip() for value in listed.split(",") if value.strip()]
    if len(set(values)) < FEWEST_CURVE_VALUES:
        raise InputError(f"Expected --over NAME=VALUE,… with at least {FEWEST_CURVE_VALUES} values, but got {over!r}.")
    attack_texts, defense_texts = split_specs(attacks), split_specs(defenses)
    if all(name in _parameters("attack", text) for text in attack_texts):
        return _varied(attack_texts, name, values), defenses
    able = [text for text in defense_texts if len(Spec.parse_chain(text)) == 1 and name in _parameters("defense", text)]
    if not able:
        known = {key for text in attack_texts for key in _parameters("attack", text)}
        check_known(name, known, f"parameter of {' or '.join(attack_texts)}")
        raise InputError(f"Not all of {attacks} have the parameter {name!r}. Draw one curve at a time.")
    rest = [text for text in defense_texts if text not in able]
    return attacks, ",".join([*rest, _varied(able, name, values)])


def _parameters(kind: Kind, text: str) -> set[str]:
    return {field.name for field in fields(load_plugin(kind, Spec.parse(text).name))}


def _varied(texts: Sequence[str], name: str, values: Sequence[str]) -> str:
    specs = [Spec.parse(text) for text in texts]
    return ",".join(
        str(replace(spec, parameters=tuple(sorted({**dict(spec.parameters), name: value}.items()))))
        for spec in specs
        for value in values
    )
