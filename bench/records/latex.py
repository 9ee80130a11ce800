"""Records as tables for a paper: defenses against attacks, one table for each data set, model and budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from bench.core.identity import without_hashes
from bench.core.text import escape_latex
from bench.errors import InputError
from bench.plugins.specs import check_known
from bench.records.format import Formatted, format_difference, format_share
from bench.records.metrics import MEASURES
from bench.records.samples import Conditions, Sample, Samples, group_by_conditions
from bench.records.schema import TIERS, Outcome, Tier

HEADINGS = {
    "clean_accuracy": "clean",
    "attacked_accuracy": "acc.",
    "accuracy_8bit": "8-bit",
    "delta": r"$\delta$",
    "beta": r"$\beta$",
    "attack_success": "ASR",
    "robustness": "rob.",
    "adversarial_effect": "effect",
    "rejection_clean": "rejects clean",
    "rejection_attacked": "rejects",
    "certified_accuracy": "cert.",
    "covered": "finds",
    "covered_wrongly": "covers wrongly",
}
"""Measure -> its heading."""
_SIGNED = ("delta", "adversarial_effect")


def latex_tables(
    outcomes: Iterable[Outcome],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    measures: Sequence[str] = ("attacked_accuracy",),
) -> str:
    """Tables for the package booktabs, each with a caption that says what its numbers share.

    Args:
        outcomes: the records.
        rows, columns: the defenses and the attacks, in this order, with `*` for any characters; all by default.
        measures: what to print of each cell, with 95 % intervals; any of `MEASURES`.

    Raises:
        InputError: no such measure, or no record of such a defense and attack.
    """
    for measure in measures:
        check_known(measure, MEASURES, "measure")
    tables = [
        _table(conditions, chosen, measures)
        for conditions, samples in group_by_conditions(outcomes)[0].items()
        if (chosen := _chosen(samples, rows, columns))
    ]
    if not tables:
        raise InputError("Expected records of these defenses and attacks, but there are none. 'bench run' makes them.")
    return "\n".join(tables)


def _chosen(samples: Samples, rows: Sequence[str], columns: Sequence[str]) -> Samples:
    """The samples in the order of the table."""
    kept: list[tuple[tuple[int, bool, str, int, str, int], tuple[str, str, Tier]]] = []
    for defense, attack, tier in samples:
        row, column = _place(defense, rows), _place(attack, columns)
        if row is not None and column is not None:
            place = (row, defense != "none", defense, column, attack, TIERS.index(tier))
            kept.append((place, (defense, attack, tier)))
    return {key: samples[key] for _, key in sorted(kept)}


def _place(text: str, patterns: Sequence[str]) -> int | None:
    """The number of the first pattern that a text fits, None if it fits none."""
    texts = (text, without_hashes(text))
    fitting = (number for number, one in enumerate(patterns) if any(fnmatchcase(each, one) for each in texts))
    return next(fitting, None) if patterns else 0


def _table(conditions: Conditions, samples: Samples, measures: Sequence[str]) -> str:
    defenses = list(dict.fromkeys(defense for defense, _, _ in samples))
    attacks = list(dict.fromkeys(attack for _, attack, _ in samples))
    pairs = {(attack, tier) for _, attack, tier in samples}
    columns = [(attack, tier) for attack in attacks for tier in TIERS if (attack, tier) in pairs]
    clean = "clean_accuracy" not in measures
    heads = [f"{escape_latex(attack)}, {tier}" for attack, tier in columns]
    wide = len(measures)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_caption(conditions, samples, measures)}}}",
        rf"\begin{{tabular}}{{l{'r' * (clean + wide * len(columns))}}}",
        r"\toprule",
        " & ".join(["", *(["clean"] if clean else []), *(_spanning(head, wide) for head in heads)]) + r" \\",
    ]
    if wide > 1:
        names = [escape_latex(HEADINGS[one]) if "$" not in HEADINGS[one] else HEADINGS[one] for one in measures]
        lines.append(" & ".join(["", *([""] if clean else []), *names * len(columns)]) + r" \\")
    lines.append(r"\midrule")
    for defense in defenses:
        own = [samples.get((defense, attack, tier)) for attack, tier in columns]
        cells = [_clean(one for one in own if one)] if clean else []
        cells += [_cell(one, measure) for one in own for measure in measures]
        lines.append(" & ".join([escape_latex(without_hashes(defense)), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _spanning(text: str, width: int) -> str:
    return rf"\multicolumn{{{width}}}{{c}}{{{text}}}" if width > 1 else text


def _caption(conditions: Conditions, samples: Samples, measures: Sequence[str]) -> str:
    counts = sorted({len(facts.index) for one in samples.values() for facts in one.facts.values()})
    images = " to ".join(str(one) for one in dict.fromkeys((counts[0], counts[-1]))) if counts else "no"
    seeds = sorted({seed for one in samples.values() for seed in one.facts})
    words = [
        f"Data: {without_hashes(conditions.dataset)}",
        f"model: {without_hashes(conditions.model)}",
        f"budget: {conditions.budget or conditions.threat_model}",
        conditions.goal,
        f"effort: {conditions.effort}",
        f"{images} images",
        f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}",
    ]
    names = ", ".join(measures).replace("_", " ").capitalize()
    return escape_latex(f"{'; '.join(words)}. {names} in percent, with 95 % intervals.")


def _clean(samples: Iterable[Sample]) -> str:
    return next((_cell(one, "clean_accuracy") for one in samples if one.facts), "--")


def _cell(sample: Sample | None, measure: str) -> str:
    if sample is None:
        return "--"
    if not sample.facts:
        return escape_latex(sample.failures[0].status)
    estimate = MEASURES[measure](*sample.facts.values(), design=sample.design)
    return _number(format_difference(estimate) if measure in _SIGNED else format_share(estimate))


def _number(number: Formatted) -> str:
    interval = rf" {{\scriptsize ({escape_latex(number.interval)})}}" if number.interval else ""
    return escape_latex(number.text) + interval
