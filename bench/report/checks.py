"""Checks that say which numbers cannot be trusted, as far as records can tell; one small function each.

No check says "robust": a row without a flag is one where no check fired. A check compares attackers with the same
knowledge only. How a defense does against attacks made on the bare model says nothing about the attacker, so most
checks look at attacks on the very model that is judged (`RowRecords.direct`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from bench.core.text import plain, signed
from bench.records.format import format_gap
from bench.records.metrics import covered, credited, rejection_clean
from bench.records.samples import Sample
from bench.records.warnings import HIDDEN_INPUTS, NON_FINITE_ATTACKED, NON_FINITE_CLEAN, is_at_chance
from bench.report.flags import (
    Flag,
    RowRecords,
    amber,
    bare_loss,
    first_is_stronger,
    is_oracle,
    is_smaller,
    not_run,
    red,
    same_tier,
)

Finder = Callable[[RowRecords], Flag | None]


class Check(NamedTuple):
    """A check: its id in the protocol, a title, what it looks for, and the function that looks."""

    id: str
    title: str
    description: str
    find: Finder


CHECKS: list[Check] = []
NOT_RUN = {
    "S04": "silent success",
    "S05": "gradient availability",
    "S07": "output scale",
    "S09": "enough draws",
    "S14": "random content",
    "S16": "unbounded attack",
    "S17": "converged",
    "S18": "restarts",
    "S21": "optimisation inside the defense",
    "S22": "planted adversarial image",
    "S25": "transfer from the substitute",
    "S32": "same record again",
}
"""Checks that need runs of their own. S01 to S03 belong to the runner: where they fail, a cell has no number."""


def run_checks(row: RowRecords) -> list[Flag]:
    """The flags of all checks that fired or could not run; the latter come last."""
    flags = [replace(flag, id=one.id, title=one.title) for one in CHECKS if (flag := one.find(row))]
    return sorted(flags, key=lambda flag: (("red", "amber", "grey").index(flag.colour), flag.id))


def check(id: str, title: str) -> Callable[[Finder], Finder]:
    """Registers a function as a check; the first line of its docstring says what it looks for."""

    def register(find: Finder) -> Finder:
        CHECKS.append(Check(id, title, (find.__doc__ or "").split("\n")[0], find))
        return find

    return register


@check("S06", "vanishing gradient")
def zero_gradients(row: RowRecords) -> Flag | None:
    """More than 5 % (amber) or 50 % (red) of the gradients that an attack asked for were zero."""
    gradients = {one.name: _noted(one, "zero_gradient") for one in row.samples if one.access == "gradients"}
    shares = {name: sum(values) / len(values) for name, values in gradients.items() if values}
    if not shares:
        return not_run("No record notes how many gradients were zero.")
    if max(shares.values()) <= 0.05:
        return None
    text = "; ".join(f"{name}: {100 * share:.1f} %" for name, share in shares.items() if share > 0.05)
    return (red if max(shares.values()) > 0.5 else amber)(f"Gradients that were exactly zero: {text}.")


@check("S08", "randomness")
def one_draw(row: RowRecords) -> Flag | None:
    """The defense is random and an adaptive attack saw a single draw, or it does not declare itself random."""
    if undeclared := _hidden_input(row, "S08"):
        return undeclared
    if not row.random:
        return None
    adaptive = [one for one in row.samples if one.cell.tier == "adaptive" and one.facts and one.access != "none"]
    if not adaptive:
        return not_run("The defense is random, and no adaptive attack was run.")
    failed = [one.name for one in adaptive if any(out.provenance.get("draws") == "1" for out in one.outcomes)]
    return red(f"A single draw of a random defense: {', '.join(failed)}.") if failed else None


@check("S11", "one step against many")
def one_step_wins(row: RowRecords) -> Flag | None:
    """An attack with one step hurts more than the same attack with many."""
    pairs = [
        (single, many)
        for single, many in same_tier(row.direct(row.samples))
        if single.family == many.family and single.steps == 1 < many.steps
    ]
    return first_is_stronger(pairs)


@check("S12", "black box against white box")
def black_box_wins(row: RowRecords) -> Flag | None:
    """An attack on scores or labels hurts more than one with gradients, by more than 0.2 points."""
    best: dict[str, tuple[Sample, Sample]] = {}
    for black, white in same_tier(row.direct(row.samples)):
        comparable = black.access in ("scores", "labels") and white.access == "gradients"
        if comparable and black.universal == white.universal:
            _, known = best.get(black.name, (black, white))
            best[black.name] = black, min(known, white, key=lambda one: one.accuracy)
    return first_is_stronger(list(best.values()), tolerance=0.002)


@check("S13", "transfer against adaptive")
def transfer_wins(row: RowRecords) -> Flag | None:
    """Images made on the bare model hurt more than those made through the defense."""
    tiers = {(one.cell.attack, one.cell.tier): one for one in row.samples if one.facts}
    pairs = [
        (one, tiers[attack, "adaptive"])
        for (attack, tier), one in tiers.items()
        if tier == "oblivious" and (attack, "adaptive") in tiers
    ]
    return None if row.bare else first_is_stronger(pairs)


@check("S15", "monotone in budget")
def larger_is_weaker(row: RowRecords) -> Flag | None:
    """The same attack hurts less with a larger budget: the attack at the larger one is weak (amber on a defense)."""
    pairs = [
        (small, large)
        for small, large in same_tier(row.direct(row.related))
        if small.cell.goal == large.cell.goal and is_smaller(small, large)
    ]
    return first_is_stronger(pairs, red if row.bare else amber)


@check("S20", "targeted and untargeted")
def target_is_easier(row: RowRecords) -> Flag | None:
    """The attack hurts more when it must reach a certain class than when any other class will do."""
    pairs = [
        (targeted, untargeted)
        for targeted, untargeted in same_tier(row.direct(row.related))
        if targeted.cell.attack == untargeted.cell.attack and targeted.cell.goal != "untargeted" == untargeted.cell.goal
    ]
    return first_is_stronger(pairs, amber)


@check("S24", "attack control")
def harmless(row: RowRecords) -> Flag | None:
    """No attack takes anything from the bare model."""
    losses = {one.name: bare_loss(one) for one in row.samples if one.facts}
    if not losses:
        return not_run("No attack has a number.")
    if any(loss.low > 0 for loss in losses.values()):
        return None
    text = "; ".join(f"{name}: {format_gap(loss)}" for name, loss in losses.items())
    return red(f"No attack certainly takes anything from the bare model. {text}.")


@check("S27", "seen attack")
def seen_attack(row: RowRecords) -> Flag | None:
    """The attack or its family was used to train or tune the defense."""
    tuned = {str(one) for one in (row.defense.traits.get("tuned_on") or ())} if row.defense else set()
    seen = set()
    for sample in row.samples:
        if sample.attack and tuned & {sample.attack.name, sample.family, str(sample.attack.traits.get("threat_model"))}:
            seen.add(sample.cell.attack)
    return amber(f"Tuned on {', '.join(sorted(tuned))}; judged with {', '.join(sorted(seen))}.") if seen else None


@check("S28", "diversity")
def partial(row: RowRecords) -> Flag | None:
    """No attack uses gradients, none uses scores, or none is adaptive."""
    done = [one for one in row.samples if one.facts]
    missing = []
    if not any("gradients" in one.accesses for one in done):
        missing.append("no gradient-based attack")
    if not any(one.accesses & {"scores", "labels"} for one in done):
        missing.append("no score-based attack")
    if not row.bare and not any(one.cell.tier == "adaptive" for one in done):
        missing.append("no adaptive attack")
    return amber(f"Partial evaluation: {', '.join(missing)}.") if missing else None


@check("S30", "occlusion control")
def mere_occlusion(row: RowRecords) -> Flag | None:
    """A patch does no more than a grey one in its place: the attack is weak, or the defense strong (then amber)."""
    effects: dict[str, float] = {}
    for sample in row.direct(row.samples):
        for facts in sample.facts.values():
            if sample.access != "none" and facts.defended_occluded:
                effect = float(np.mean(credited(facts, "defended_occluded") - credited(facts, "defended_attacked")))
                effects[sample.name] = min(effect, effects.get(sample.name, 1.0))
    if not effects:
        return not_run("No patch attack on this very model.")
    failed = [f"{name}: {signed(100 * effect)} points" for name, effect in effects.items() if effect <= 0]
    flag = red if row.bare else amber
    return flag(f"What the attack does beyond plain occlusion: {'; '.join(failed)}.") if failed else None


@check("S31", "oracle mask")
def better_than_oracle(row: RowRecords) -> Flag | None:
    """The defense does better than repair with the true mask."""
    if row.bare or is_oracle(row.defense):
        return None
    own = {(one.cell.attack, one.cell.tier): one for one in row.samples if one.facts}
    pairs = [
        (oracle, own[attack, tier])
        for (_, attack, tier), oracle in row.oracles.items()
        if oracle.facts and (attack, tier) in own
    ]
    return first_is_stronger(pairs, amber)


@check("S33", "sample size")
def few_images(row: RowRecords) -> Flag | None:
    """The interval of the headline is wider than 5 points to each side."""
    if row.bare or row.headline is None or row.headline.n == 0:
        return None
    half = (row.headline.high - row.headline.low) / 2
    text = f"± {100 * half:.1f} points with {row.headline.n} images, which widens the ties."
    return amber(text) if half > 0.05 else None


@check("S34", "independence of other images")
def depends_on_others(row: RowRecords) -> Flag | None:
    """An answer depends on the other images in the batch, or on those shown before."""
    return _hidden_input(row, "S34")


@check("S35", "timing noise")
def noisy_times(row: RowRecords) -> Flag | None:
    """The slowest twentieth of the repetitions took more than three times the median."""
    if row.latency is None or row.latency.status != "ok":
        return not_run("Not timed.")
    spreads = {size: times.get("spread", 0.0) for size, times in row.latency.batches.items()}
    failed = [f"batch {size}: {spread:.1f}×" for size, spread in spreads.items() if spread > 3]
    return amber(f"95th percentile over median: {'; '.join(failed)}.") if failed else None


@check("S36", "finite logits")
def not_finite(row: RowRecords) -> Flag | None:
    """Logits of the defended model were NaN or infinite; such answers count as wrong."""
    broken = {one.name: _noted(one, NON_FINITE_CLEAN) + _noted(one, NON_FINITE_ATTACKED) for one in row.samples}
    failed = [f"{name}: {100 * sum(values) / len(values):.1f} %" for name, values in broken.items() if any(values)]
    return red(f"Answers that are not finite: {'; '.join(failed)}.") if failed else None


@check("S37", "chance level")
def at_chance(row: RowRecords) -> Flag | None:
    """The bare model is no better than chance on clean images."""
    for sample in row.samples:
        for outcome in sample.outcomes:
            if outcome.facts and is_at_chance(outcome.facts.bare_clean, outcome.classes):
                accuracy = f"{100 * float(np.mean(outcome.facts.bare_clean)):.1f} %"
                return red(f"Clean accuracy of {accuracy}: check the weights, normalisation and order of the classes.")
    return None


@check("C01", "broken certificate")
def broken_certificate(row: RowRecords) -> Flag | None:
    """An image was misclassified despite its proof.

    The proof of a random defense holds with some confidence only; then the check asks for more proofs than survivors.
    """
    failed = []
    for sample in row.samples:
        for facts in sample.facts.values():
            if facts.certified is not None:
                proven, kept = np.asarray(facts.certified), np.asarray(facts.defended_attacked)
                lost = float((proven - kept).sum() if row.random else ((proven == 1) & (kept < 1)).sum())
                failed += [f"{sample.name}: {lost:.3g}"] if lost > 0 else []
    return red(f"Proven and misclassified: {'; '.join(failed)}.") if failed else None


@check("D01", "false alarms")
def many_false_alarms(row: RowRecords) -> Flag | None:
    """A detector rejects more clean images than it was calibrated for, beyond the interval."""
    nominal = row.defense.parameters.get("false_positive_rate") if row.defense else None
    rates = [
        rate for one in row.samples if one.facts and (rate := rejection_clean(*one.facts.values(), design=one.design))
    ]
    if nominal is None or not rates or rates[0].low <= nominal:
        return None
    percent = 100 * rates[0].value
    return amber(f"{percent:.1f} % of the clean images are rejected, calibrated for {100 * nominal:.3g} %.")


@check("D02", "misses the patch")
def misplaced(row: RowRecords) -> Flag | None:
    """A defense that looks for the attacked pixels finds less than half of them."""
    found = {f"{one.name}, {one.cell.tier}": covered(*one.facts.values()) for one in row.samples if one.facts}
    missed = {name: share for name, share in found.items() if share and share.high < 0.5}
    text = "; ".join(f"{name}: {100 * share.value:.0f} %" for name, share in missed.items())
    return amber(f"Of the attacked pixels it finds less than half. {text}.") if missed else None


@check("W", "warnings of the run")
def warned(row: RowRecords) -> Flag | None:
    """The run gave a warning."""
    texts = {f"{one.name}: {plain(text)}" for one in row.samples for out in one.outcomes for text in out.warnings}
    return amber(" · ".join(sorted(texts)), brief="bench show prints them for each cell.") if texts else None


def _noted(sample: Sample, name: str) -> list[float]:
    """The values of a note about images, of all seeds."""
    return [one for facts in sample.facts.values() for one in facts.noted.get(name, ()) if one is not None]


def _hidden_input(row: RowRecords, id: str) -> Flag | None:
    """What the run noted about answers that depend on more than the image."""
    cells: dict[str, list[str]] = {}
    for sample in row.samples:
        for name, (check_id, text) in HIDDEN_INPUTS.items():
            if check_id == id and any(name in facts.noted for facts in sample.facts.values()):
                cells.setdefault(text, []).append(sample.name)
    return red("; ".join(f"{text}: {', '.join(names)}" for text, names in cells.items()) + ".") if cells else None
