"""Records -> numbers with intervals: accuracies, δ, β, worst cases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from jaxtyping import Bool

from bench.records.intervals import NOTHING, Comparison, Estimate, PerImage, Values, mean, widened, wilson
from bench.records.schema import COVERED, COVERED_WRONGLY, Facts

Mask = Bool[np.ndarray, "n"]
_UNDER_ATTACK = ("defended_attacked", "defended_attacked_8bit", "defended_occluded")
"""The facts in which a rejection counts as correct."""


@dataclass(frozen=True)
class Design:
    """What a row's numbers are a sample of, on which their intervals depend.

    Attributes:
        photographs: whether each class is crops of a single photograph, so that the classes are independent of each
            other and the images are not.
        trainings: whether the defense learned anew for each seed, so that the seeds are a sample of trainings.
    """

    photographs: bool = False
    trainings: bool = False


IMAGES = Design()
"""Independent images, and nothing that was trained."""


def per_image(
    seeds: Sequence[Facts], name: str, where: Callable[[Facts], Mask] | None = None, design: Design = IMAGES
) -> PerImage | None:
    """The fact `name` of each image, as the mean over the seeds that have the image.

    Args:
        seeds: the facts of one cell, once for each seed.
        name: a field of Facts.
        where: which images count; all by default.
        design: what the images and the seeds are a sample of.

    Returns:
        None if no seed has this fact.
    """
    known = [facts for facts in seeds if getattr(facts, name) is not None]
    return _by_image(known, [credited(facts, name) for facts in known], where, design)


def credited(facts: Facts, name: str) -> Values:
    """The fact `name` of each image, without credit for false alarms.

    A detector that also rejects the clean image catches nothing: its rejection of the attacked image, which the facts
    count as correct, does not count here.
    """
    values = np.array(getattr(facts, name), dtype=np.float64)
    if name not in _UNDER_ATTACK or facts.rejected_clean is None or facts.rejected_attacked is None:
        return values
    return np.maximum(values - np.minimum(facts.rejected_clean, facts.rejected_attacked), 0)


def _by_image(
    seeds: Sequence[Facts], columns: Sequence[Values], where: Callable[[Facts], Mask] | None, design: Design
) -> PerImage | None:
    """A column of values for each seed, as one value for each image."""
    if not seeds:
        return None
    kept = [np.ones(len(facts.index), dtype=bool) if where is None else where(facts) for facts in seeds]
    if len(seeds) == 1 and not design.photographs:
        index = np.array(seeds[0].index, dtype=np.int64)[kept[0]]
        order = np.argsort(index)
        return PerImage(index[order], columns[0][kept[0]][order])
    places = [np.array(facts.index, dtype=np.int64)[mask] for facts, mask in zip(seeds, kept, strict=True)]
    images, place = np.unique(np.concatenate(places), return_inverse=True)
    table = np.full((len(seeds), len(images)), np.nan)
    table[np.repeat(np.arange(len(seeds)), [len(one) for one in places]), place] = np.concatenate(
        [values[mask] for values, mask in zip(columns, kept, strict=True)]
    )
    judged = ~np.isnan(table)
    values = np.where(judged, table, 0.0).sum(0) / judged.sum(0)
    photograph = None
    if design.photographs:
        photograph = np.empty(len(images), dtype=np.int64)
        photograph[place] = np.concatenate(
            [np.array(facts.label, dtype=np.int64)[mask] for facts, mask in zip(seeds, kept, strict=True)]
        )
    return PerImage(images, values, photograph, table if design.trainings and len(seeds) > 1 else None)


def _share(
    seeds: Sequence[Facts], name: str, design: Design, where: Callable[[Facts], Mask] | None = None
) -> Estimate | None:
    vector = per_image(seeds, name, where, design)
    return None if vector is None else mean(vector)


def _gap(seeds: Sequence[Facts], first: str, second: str, design: Design) -> Estimate | None:
    left, right = (per_image(seeds, name, design=design) for name in (first, second))
    return None if left is None or right is None else Comparison(left, right, same_trainings=True).estimate


def _noted(seeds: Sequence[Facts], name: str, design: Design) -> Estimate | None:
    """A note about each image, over the images on which something was noted."""
    known = [facts for facts in seeds if name in facts.noted]
    columns = [np.array(facts.noted[name], dtype=np.float64) for facts in known]
    vector = _by_image(known, columns, lambda facts: ~np.isnan(np.array(facts.noted[name], dtype=np.float64)), design)
    return mean(vector) if vector and len(vector.values) else None


def _fooled(facts: Facts) -> Mask:
    """D: the images that the bare model gets right and the attack turns."""
    return (np.asarray(facts.bare_clean) > 0.5) & (np.asarray(facts.bare_attacked) < 0.5)


def clean_accuracy(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """Share of all images that the defended model gets right without an attack."""
    return _share(seeds, "defended_clean", design)


def attacked_accuracy(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """Share of all images, not only of the eligible ones, that the defended model gets right under attack."""
    return _share(seeds, "defended_attacked", design)


def accuracy_8bit(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """As `attacked_accuracy`, with the attacked images rounded to 8 bits."""
    return _share(seeds, "defended_attacked_8bit", design)


def delta(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """δ: clean − attacked accuracy of the defended model, paired; smaller is better."""
    return _gap(seeds, "defended_clean", "defended_attacked", design)


def beta(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """β: accuracy under attack on D, the images that the attack turns on the bare model; n is |D|."""
    return _share(seeds, "defended_attacked", design, _fooled)


def attack_success(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """ASR: share of the eligible images on which the attacker reaches the goal.

    Of a random defense over all draws: an image that only some draws classify correctly counts with that share.
    `eligible` and `reached` go by the first draw; where it was wrong, any error of the others is a success.
    """
    weights, hits = zip(*map(_success, seeds), strict=True) if seeds else ((), ())
    weight, hit = (_by_image(seeds, columns, None, design) for columns in (weights, hits))
    if weight is None or hit is None:
        return None
    counted = weight.index[weight.values > 0]
    weight, hit = weight.at(counted), hit.at(counted)
    if len(counted) == 0:
        return NOTHING
    total = float(weight.values.sum())
    value = float(hit.values.sum()) / total
    effective = total**2 / float(weight.values @ weight.values)
    independent = effective if weight.photograph is None else len(np.unique(weight.photograph))
    low, high = wilson(value, independent)
    if hit.trainings is not None:
        rates = (hit.resampled_with(0) / weight.resampled_with(0).clip(1e-12)).clip(0, 1)
        low, high = widened(low, high, rates)
    return Estimate(value, low, high, len(counted))


def _success(facts: Facts) -> tuple[Values, Values]:
    """For each image how much it counts, and how much of that the attacker turns."""
    eligible, reached, clean, attacked = (
        np.asarray(values, dtype=np.float64)
        for values in (facts.eligible, facts.reached, facts.defended_clean, facts.defended_attacked)
    )
    sometimes = (clean > 0) & (clean < 1)
    weight = np.where(sometimes, clean, eligible)
    return weight, weight * np.where(eligible > 0, reached, 1 - attacked)


def robustness(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """1 − ASR."""
    rate = attack_success(*seeds, design=design)
    return None if rate is None else Estimate(1 - rate.value, 1 - rate.high, 1 - rate.low, rate.n)


def adversarial_effect(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """Accuracy with the changed pixels grey − attacked accuracy, paired: what a patch does beyond covering pixels."""
    return _gap(seeds, "defended_occluded", "defended_attacked", design)


def rejection_clean(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """Share of the clean images that are rejected."""
    return _share(seeds, "rejected_clean", design)


def rejection_attacked(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """Share of the attacked images that are rejected."""
    return _share(seeds, "rejected_attacked", design)


def certified_accuracy(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """Share of the images for which it is proven that no attack within the budget changes the correct answer."""
    return _share(seeds, "certified", design)


def covered(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """Share of the changed pixels of an attacked image that the defense takes for attacked."""
    return _noted(seeds, COVERED, design)


def covered_wrongly(*seeds: Facts, design: Design = IMAGES) -> Estimate | None:
    """Share of an attacked image that the defense takes for attacked although it is unchanged."""
    return _noted(seeds, COVERED_WRONGLY, design)


MEASURES: dict[str, Callable[..., Estimate | None]] = {
    measure.__name__: measure
    for measure in (
        clean_accuracy,
        attacked_accuracy,
        accuracy_8bit,
        delta,
        beta,
        attack_success,
        robustness,
        adversarial_effect,
        rejection_clean,
        rejection_attacked,
        certified_accuracy,
        covered,
        covered_wrongly,
    )
}
"""Each takes the facts of a cell with one or several seeds; an image counts with its mean over the seeds."""


def worst_case(attacks: Sequence[Facts]) -> Facts:
    """The facts of an attacker who tries several attacks and needs only one to succeed: the worst for each image.

    The attacks have the same defense, tier and seed; only images that all of them have are kept. All measures apply to
    the result: D, for example, then holds the images that any of the attacks turns on the bare model.
    """
    common = reduce(np.intersect1d, [np.asarray(facts.index, dtype=np.int64) for facts in attacks])
    rows = [np.argsort(facts.index)[np.isin(np.sort(facts.index), common)] for facts in attacks]

    def over(name: str, how: Callable[..., Any]) -> list[Any]:
        values = [credited(facts, name)[row] for facts, row in zip(attacks, rows, strict=True)]
        return list(how(np.stack(values), axis=0).tolist())

    return Facts(
        index=common.tolist(),
        label=over("label", np.max),
        eligible=over("eligible", np.max),
        bare_clean=over("bare_clean", np.mean),
        bare_attacked=over("bare_attacked", np.min),
        defended_clean=over("defended_clean", np.mean),
        defended_attacked=over("defended_attacked", np.min),
        defended_attacked_8bit=over("defended_attacked_8bit", np.min),
        reached=over("reached", np.max),
    )
