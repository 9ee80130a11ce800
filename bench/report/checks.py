"""Checks that say a number cannot be trusted, as far as records alone can tell; one small function each.

What no flag says is "robust": a row without a flag is one where no check fired. A check compares attackers of
equal knowledge only. Attacks made on the bare model and shown to a defense say nothing of how good the attacker
was, so most checks look at attacks on the very model that is judged (`Row.direct`).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bench.core.text import plain, signed
from bench.records.metrics import rejection_clean
from bench.report.flags import Flag, Row, bare_loss, beaten, figures, grows, same_tier

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
    "S34": "independence of the batch",
}
"""Checks that need runs of their own, which records of cells do not hold. S01 to S03 are the runner's: where they
fail there is a status and no number."""


def judge(row: Row) -> list[Flag]:
    """What all checks say of a row, grey ones last; nothing for those that ran and did not fire."""
    found = [flag for check in CHECKS if (flag := check(row))]
    return sorted(found, key=lambda flag: (("red", "amber", "grey").index(flag.colour), flag.id))


def zero_gradients(row: Row) -> Flag | None:
    """S06: more than 5 % (amber) or 50 % (red) of the gradients that an attack asked for were zero."""
    title = "vanishing gradient"
    seen: dict[str, float] = {}
    for sample in row.samples:
        noted = [one for facts in sample.facts.values() for one in facts.noted.get("zero_gradient", ())]
        shares = [one for one in noted if one is not None]
        if sample.access == "gradients" and shares:
            seen[sample.name] = sum(shares) / len(shares)
    if not seen:
        return Flag("S06", "grey", title, "No record notes the gradients that were zero.")
    worst = max(seen.values())
    if worst <= 0.05:
        return None
    text = "; ".join(f"{name}: {100 * value:.1f} %" for name, value in seen.items() if value > 0.05)
    return Flag("S06", "red" if worst > 0.5 else "amber", title, f"Gradients that were exactly zero. {text}.")


def no_averaging(row: Row) -> Flag | None:
    """S08: the defense is random, and an informed attacker looked at one draw only."""
    title = "randomness"
    if not row.record or not row.record.traits.get("random"):
        return None
    informed = [one for one in row.samples if one.tier == "adaptive" and one.facts and one.access != "none"]
    if not informed:
        return Flag("S08", "grey", title, "The defense is random, and no informed attacker tried it.")
    hit = [one.name for one in informed if any(out.provenance.get("draws") == "1" for out in one.outcomes)]
    return Flag("S08", "red", title, f"One draw of a random defense: {', '.join(hit)}.") if hit else None


def one_step_wins(row: Row) -> Flag | None:
    """S11: an attack of one step hurts more than the same attack with many."""
    pairs = [
        (one, many)
        for one, many in same_tier(row.direct(row.samples))
        if one.family == many.family and one.steps == 1 < many.steps
    ]
    return beaten("S11", "one step against many", pairs)


def black_box_wins(row: Row) -> Flag | None:
    """S12: an attack on scores or labels hurts more than one with gradients, by more than 0.2 points too."""
    pairs = [
        (black, white)
        for black, white in same_tier(row.direct(row.samples))
        if black.access in ("scores", "labels") and white.access == "gradients" and black.universal == white.universal
    ]
    best = [
        (black, min((white for one, white in pairs if one is black), key=lambda one: one.accuracy))
        for black in {id(one): one for one, _ in pairs}.values()
    ]
    return beaten("S12", "black box against white box", best, 0.002)


def transfer_wins(row: Row) -> Flag | None:
    """S13: images made on the bare model hurt more than those made through the defense."""
    tiers = {(one.attack, one.tier): one for one in row.samples if one.facts}
    pairs = [
        (one, tiers[attack, "adaptive"])
        for (attack, tier), one in tiers.items()
        if tier == "oblivious" and (attack, "adaptive") in tiers
    ]
    return None if row.bare else beaten("S13", "transfer against adaptive", pairs)


def larger_is_weaker(row: Row) -> Flag | None:
    """S15: with a larger budget the same attack hurts less."""
    pairs = [
        (small, large)
        for small, large in same_tier(row.direct(row.related))
        if small.goal == large.goal and grows(small, large)
    ]
    return beaten("S15", "monotone in budget", pairs)


def target_is_easier(row: Row) -> Flag | None:
    """S20: the attack hurts more when it has to reach a certain class than when any will do."""
    pairs = [
        (targeted, free)
        for targeted, free in same_tier(row.direct(row.related))
        if targeted.attack == free.attack and targeted.goal != "untargeted" == free.goal
    ]
    return beaten("S20", "targeted and untargeted", pairs, colour="amber")


def harmless(row: Row) -> Flag | None:
    """S24: nothing that was tried takes anything from the bare model."""
    title = "attack control"
    oblivious = [one for one in row.samples if one.facts]
    if not oblivious:
        return Flag("S24", "grey", title, "No attack has a number.")
    losses = {one.name: bare_loss(one) for one in oblivious}
    if any(loss.low > 0 for loss in losses.values()):
        return None
    text = "; ".join(f"{name}: {figures(loss)}" for name, loss in losses.items())
    return Flag("S24", "red", title, f"No attack takes anything from the bare model for certain. {text}.")


def seen_attack(row: Row) -> Flag | None:
    """S27: the attack, or its family, was used to train or to tune the defense."""
    tuned = {str(one) for one in (row.record.traits.get("tuned_on") or ())} if row.record else set()
    hit = sorted({one.attack for one in row.samples if tuned & one.names})
    if not hit:
        return None
    return Flag("S27", "amber", "seen attack", f"Tuned on {', '.join(sorted(tuned))}; judged with {', '.join(hit)}.")


def partial(row: Row) -> Flag | None:
    """S28: no attack with gradients, none with scores, or no adaptive one."""
    ran = [one for one in row.samples if one.facts]
    missing = []
    if not any(one.access == "gradients" for one in ran):
        missing.append("no gradient-based attack")
    if not any(one.access in ("scores", "labels") for one in ran):
        missing.append("no score-based attack")
    if not row.bare and not any(one.tier == "adaptive" for one in ran):
        missing.append("no adaptive attack")
    if not missing:
        return None
    return Flag("S28", "amber", "diversity", f"Partial evaluation: {', '.join(missing)}.")


def mere_occlusion(row: Row) -> Flag | None:
    """S30: a patch does no more than a grey one in its place."""
    title = "occlusion control"
    effects: dict[str, float] = {}
    for sample in row.direct(row.samples):
        for facts in sample.facts.values():
            if sample.access != "none" and facts.defended_occluded:
                effect = float(np.mean(facts.defended_occluded) - np.mean(facts.defended_attacked))
                effects[sample.name] = min(effect, effects.get(sample.name, 1.0))
    if not effects:
        reason = "No patch attack on this model itself." if row.samples else "No attack."
        return Flag("S30", "grey", title, reason)
    hit = [f"{name}: {signed(100 * effect)} points" for name, effect in effects.items() if effect <= 0]
    if not hit:
        return None
    return Flag("S30", "red", title, f"What the attack does beyond plain occlusion. {'; '.join(hit)}.")


def better_than_oracle(row: Row) -> Flag | None:
    """S31: the defense does better than repair with the true mask."""
    if row.bare or (row.record and row.record.traits.get("ranked") is False):
        return None
    mine = {(one.attack, one.tier): one for one in row.samples if one.facts}
    pairs = [
        (oracle, mine[attack, tier])
        for (_, attack, tier), oracle in row.oracles.items()
        if oracle.facts and (attack, tier) in mine
    ]
    return beaten("S31", "oracle mask", pairs, colour="amber")


def few_images(row: Row) -> Flag | None:
    """S33: the interval of the headline is wider than 5 points to each side."""
    if row.bare or row.headline is None or row.headline.n == 0:
        return None
    half = (row.headline.high - row.headline.low) / 2
    if half <= 0.05:
        return None
    text = f"± {100 * half:.1f} points with {row.headline.n} images; shown, not ranked."
    return Flag("S33", "amber", "sample size", text)


def noisy_times(row: Row) -> Flag | None:
    """S35: the slowest twentieth of the repeats took more than three times the median."""
    title = "timing noise"
    if row.latency is None:
        return Flag("S35", "grey", title, "Not timed.")
    spreads = {size: times.get("spread", 0.0) for size, times in row.latency.batches.items()}
    hit = [f"batch {size}: {spread:.1f}×" for size, spread in spreads.items() if spread > 3]
    return Flag("S35", "amber", title, f"95th percentile over median. {'; '.join(hit)}.") if hit else None


def broken_certificate(row: Row) -> Flag | None:
    """C01: an image with a proof was lost all the same.

    A random defense's proof holds with some confidence only; then more proofs than survivors are needed.
    """
    random = bool(row.record and row.record.traits.get("random"))
    hit = []
    for sample in row.samples:
        for facts in sample.facts.values():
            if facts.certified is not None:
                proven, kept = np.asarray(facts.certified), np.asarray(facts.defended_attacked)
                lost = max(0.0, float((proven - kept).sum())) if random else float(((proven == 1) & (kept < 1)).sum())
                hit += [f"{sample.name}: {lost:.3g}"] if lost else []
    return Flag("C01", "red", "broken certificate", f"Proven, and lost. {'; '.join(hit)}.") if hit else None


def many_false_alarms(row: Row) -> Flag | None:
    """D01: a detector rejects more of the clean images than it was calibrated for, beyond the interval."""
    nominal = row.record.parameters.get("false_positive_rate") if row.record else None
    seen = [told for one in row.samples if one.facts and (told := rejection_clean(*one.facts.values()))]
    if nominal is None or not seen or seen[0].low <= nominal:
        return None
    text = f"{100 * seen[0].value:.1f} % of the clean images are rejected, calibrated for {100 * nominal:.3g} %."
    return Flag("D01", "amber", "false alarms", text)


def warned(row: Row) -> Flag | None:
    """W: the runner had a warning."""
    said = {f"{one.name}: {plain(text)}" for one in row.samples for out in one.outcomes for text in out.warnings}
    return Flag("W", "amber", "warnings of the run", " · ".join(sorted(said))) if said else None


CHECKS: tuple[Callable[[Row], Flag | None], ...] = (
    zero_gradients,
    no_averaging,
    one_step_wins,
    black_box_wins,
    transfer_wins,
    larger_is_weaker,
    target_is_easier,
    harmless,
    seen_attack,
    partial,
    mere_occlusion,
    better_than_oracle,
    few_images,
    noisy_times,
    broken_certificate,
    many_false_alarms,
    warned,
)
