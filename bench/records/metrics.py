"""Records -> numbers with intervals: accuracies, δ, β, worst cases, paired differences and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from bench.records.schema import Facts

Places = Int[np.ndarray, "n"]
Values = Float[np.ndarray, "n"]
Mask = Bool[np.ndarray, "n"]
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` images with its 95 % interval, as shares (0 to 1; differences -1 to 1); NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PerImage:
    """One number for each of some images, with their places in the data set, in increasing order."""

    index: Places
    values: Values


def mean(vector: PerImage) -> Estimate:
    """The mean of values in [0, 1] with Wilson's score interval (JASA 22, 1927).

    It is exact for 0 and 1; for shares it is wider than necessary, since they vary less.
    """
    n = len(vector.values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(vector.values.mean())
    low, high = wilson(value, n)
    return Estimate(value, low, high, n)


def wilson(value: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share `value` of `n` images, n ≥ 1."""
    centre = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2))
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


def difference(first: PerImage, second: PerImage) -> Estimate:
    """Mean of `first` − `second` over the images that both have, with a paired 95 % interval.

    The adjusted Wald interval of Bonett and Price (J. Educational and Behavioral Statistics 37, 2012): as if there were
    two more images, one gained and one lost. Its variance comes from the differences themselves, so it holds for shares
    as well as for 0 and 1. No difference on few images is not taken for certainty, as in a bootstrap; McNemar's test
    handles only 0 and 1.
    """
    a, b = _paired(first, second)
    n = len(a)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    gap = a - b
    value, centre = float(gap.mean()), float(gap.sum()) / (n + 2)
    half = _Z * math.sqrt(((float(gap @ gap) + 2) / (n + 2) - centre**2) / (n + 2))
    return Estimate(value, min(value, max(-1.0, centre - half)), max(value, min(1.0, centre + half)), n)


def _paired(first: PerImage, second: PerImage) -> tuple[Values, Values]:
    if np.array_equal(first.index, second.index):
        return first.values, second.values
    _, left, right = np.intersect1d(first.index, second.index, assume_unique=True, return_indices=True)
    return first.values[left], second.values[right]


def per_image(seeds: Sequence[Facts], name: str, where: Callable[[Facts], Mask] | None = None) -> PerImage | None:
    """The fact `name` of each image, as the mean over the seeds that have the image.

    Args:
        seeds: the facts of one cell, once for each seed.
        name: a field of Facts.
        where: which images count; all by default.

    Returns:
        None if no seed has this fact.
    """
    parts = [_column(facts, name, where) for facts in seeds if getattr(facts, name) is not None]
    if not parts:
        return None
    if len(parts) == 1 and bool(np.all(np.diff(parts[0].index) > 0)):
        return parts[0]
    images, place = np.unique(np.concatenate([part.index for part in parts]), return_inverse=True)
    sums = np.bincount(place, np.concatenate([part.values for part in parts]), len(images))
    return PerImage(images, sums / np.bincount(place, minlength=len(images)))


def _column(facts: Facts, name: str, where: Callable[[Facts], Mask] | None) -> PerImage:
    """A fact of a single record."""
    index, values = np.array(facts.index, dtype=np.int64), np.array(getattr(facts, name), dtype=np.float64)
    if where is None:
        return PerImage(index, values)
    kept = where(facts)
    return PerImage(index[kept], values[kept])


def _share(seeds: Sequence[Facts], name: str, where: Callable[[Facts], Mask] | None = None) -> Estimate | None:
    vector = per_image(seeds, name, where)
    return None if vector is None else mean(vector)


def _gap(seeds: Sequence[Facts], first: str, second: str) -> Estimate | None:
    left, right = per_image(seeds, first), per_image(seeds, second)
    return None if left is None or right is None else difference(left, right)


def _eligible(facts: Facts) -> Mask:
    return np.asarray(facts.eligible) > 0


def _fooled(facts: Facts) -> Mask:
    """D: the images that the bare model gets right and the attack turns."""
    return (np.asarray(facts.bare_clean) > 0.5) & (np.asarray(facts.bare_attacked) < 0.5)


def clean_accuracy(*seeds: Facts) -> Estimate | None:
    """Share of all images that the defended model gets right without an attack."""
    return _share(seeds, "defended_clean")


def attacked_accuracy(*seeds: Facts) -> Estimate | None:
    """Share of all images, not only of the eligible ones, that the defended model gets right under attack."""
    return _share(seeds, "defended_attacked")


def accuracy_8bit(*seeds: Facts) -> Estimate | None:
    """As `attacked_accuracy`, with the attacked images rounded to 8 bits."""
    return _share(seeds, "defended_attacked_8bit")


def delta(*seeds: Facts) -> Estimate | None:
    """δ: clean − attacked accuracy of the defended model, paired; smaller is better."""
    return _gap(seeds, "defended_clean", "defended_attacked")


def beta(*seeds: Facts) -> Estimate | None:
    """β: accuracy under attack on D, the images that the attack turns on the bare model; n is |D|."""
    return _share(seeds, "defended_attacked", _fooled)


def attack_success(*seeds: Facts) -> Estimate | None:
    """ASR: share of the eligible images on which the attacker reaches the goal."""
    return _share(seeds, "reached", _eligible)


def robustness(*seeds: Facts) -> Estimate | None:
    """1 − ASR."""
    rate = attack_success(*seeds)
    return None if rate is None else Estimate(1 - rate.value, 1 - rate.high, 1 - rate.low, rate.n)


def adversarial_effect(*seeds: Facts) -> Estimate | None:
    """Accuracy with the changed pixels grey − attacked accuracy, paired: what a patch does beyond covering pixels."""
    return _gap(seeds, "defended_occluded", "defended_attacked")


def rejection_clean(*seeds: Facts) -> Estimate | None:
    """Share of the clean images that are rejected."""
    return _share(seeds, "rejected_clean")


def rejection_attacked(*seeds: Facts) -> Estimate | None:
    """Share of the attacked images that are rejected."""
    return _share(seeds, "rejected_attacked")


def certified_accuracy(*seeds: Facts) -> Estimate | None:
    """Share of the images for which it is proven that no attack within the budget changes the correct answer."""
    return _share(seeds, "certified")


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
        values = [np.asarray(getattr(facts, name))[row] for facts, row in zip(attacks, rows, strict=True)]
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


def ranks(vectors: Sequence[PerImage]) -> list[int]:
    """The rank of each row: one more than the number of rows that are better beyond the paired interval.

    Rows whose difference may be zero are thus tied. A row is never ranked above a row with a higher mean.
    """
    order = sorted(range(len(vectors)), key=lambda row: -mean(vectors[row]).value)
    ranked: dict[int, int] = {}
    for position, row in enumerate(order):
        better = sum(difference(vectors[other], vectors[row]).low > 0 for other in order[:position])
        ranked[row] = max([1 + better, *ranked.values()])
    return [ranked[row] for row in range(len(vectors))]
