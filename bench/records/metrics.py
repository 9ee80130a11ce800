"""Records -> numbers with intervals: accuracies, δ, β, worst cases and paired differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, reduce
from statistics import NormalDist
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Bool, Float, Int

from bench.records.schema import COVERED, COVERED_WRONGLY, Facts

Places = Int[np.ndarray, "n"]
Values = Float[np.ndarray, "n"]
Trainings = Float[np.ndarray, "s n"]
Mask = Bool[np.ndarray, "n"]
_RESAMPLES = 2000
"""Of a bootstrap."""
_UNDER_ATTACK = ("defended_attacked", "defended_attacked_8bit", "defended_occluded")
"""The facts in which a rejection counts as correct."""
_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` images with its 95 % interval, as shares (0 to 1; differences -1 to 1); NaN where n is 0."""

    value: float
    low: float
    high: float
    n: int


NOTHING = Estimate(math.nan, math.nan, math.nan, 0)


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


@dataclass(frozen=True)
class PerImage:
    """One number for each of some images, with their places in the data set, in increasing order.

    Attributes:
        index, values: the places, and the numbers.
        photograph: the number of the photograph that each image shows, if several images share one.
        trainings: the numbers of each of several trainings, of which `values` is the mean; NaN where a training was
            not judged on an image.
    """

    index: Places
    values: Values
    photograph: Places | None = None
    trainings: Trainings | None = None

    def at(self, images: Places) -> PerImage:
        """The same for some of its images only."""
        rows = np.searchsorted(self.index, images)
        photograph = None if self.photograph is None else self.photograph[rows]
        trainings = None if self.trainings is None else self.trainings[:, rows]
        return PerImage(images, self.values[rows], photograph, trainings)

    @cached_property
    def resampled(self) -> Values:
        """The mean of each of 2,000 resamples of the images and of the trainings."""
        return self.resampled_with(0 if self.trainings is None else crc32(self.trainings.tobytes()))

    def resampled_with(self, stream: int) -> Values:
        """As `resampled`; measures of the same trainings are resampled together with the same stream.

        Rounded, since the last digits depend on the order in which a machine sums, and a printed end of an interval
        must not.
        """
        weights = _weights(len(self.values), 0)
        if self.trainings is None:
            means = weights @ self.values
        else:
            count = len(self.trainings)
            drawn = 1 / count + _widening(count) * (_weights(count, stream) - 1 / count)
            judged = ~np.isnan(self.trainings)
            means = (weights @ np.where(judged, self.trainings, 0.0).T * drawn).sum(1)
            if not judged.all():
                counts = (weights @ judged.T.astype(np.float64) * drawn).sum(1)
                means = np.divide(means, counts, out=np.zeros_like(means), where=counts > 0)
        rounded: Values = means.clip(0, 1).round(12)
        return rounded


@lru_cache(maxsize=16)  # each takes 16 MB for 1000 images
def _weights(count: int, stream: int) -> Float[np.ndarray, "r n"]:
    """How much each of `count` things weighs in each resample."""
    return np.random.default_rng((count, stream)).multinomial(count, np.full(count, 1 / count), _RESAMPLES) / count


@cache
def _widening(trainings: int) -> float:
    """How much further resampled trainings must be from their mean for 95 % intervals; 2.7 for three of them.

    Resampled, few trainings vary less than new ones by (s − 1) / s, and their mean is spread as Student's t, not as a
    normal distribution.
    """
    from scipy.special import stdtrit

    return float(stdtrit(trainings - 1, 0.975)) / _Z * math.sqrt(trainings / (trainings - 1))


def mean(vector: PerImage) -> Estimate:
    """The mean of values in [0, 1] with Wilson's score interval (JASA 22, 1927).

    It is made for 0 and 1; for shares it is wider than necessary, since they vary less. Where images share
    photographs, the photographs count as independent instead of the images. With several trainings the interval also
    holds the hierarchical bootstrap interval over trainings and images, widened for few trainings.
    """
    n = len(vector.values)
    if n == 0:
        return NOTHING
    value = float(vector.values.mean())
    independent = n if vector.photograph is None else len(np.unique(vector.photograph))
    low, high = wilson(value, independent)
    if vector.trainings is not None:
        first, last = np.percentile(vector.resampled, (2.5, 97.5))
        low, high = min(low, float(first)), max(high, float(last))
    return Estimate(value, low, high, n)


def wilson(value: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval for a share `value` of `n` images, n ≥ 1."""
    centre = (value + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(value * (1 - value) / n + _Z**2 / (4 * n**2))
    return min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half))


@dataclass(frozen=True)
class Comparison:
    """`first` − `second` over the images that both have, for an interval or a test.

    The adjusted Wald interval of Bonett and Price (J. Educational and Behavioral Statistics 37, 2012): as if there were
    two more images, one gained and one lost. Its variance comes from the differences themselves, so it holds for shares
    as well as for 0 and 1. No difference on few images is not taken for certainty, as in a bootstrap; McNemar's test
    handles only 0 and 1. Where images share photographs, the mean difference of each photograph takes the place of
    the image. With several trainings, the hierarchical bootstrap over trainings and images can only widen the result.

    Attributes:
        same_trainings: whether both are measures of the same trainings, as clean and attacked accuracy are.
    """

    first: PerImage
    second: PerImage
    same_trainings: bool = False

    @cached_property
    def _paired(self) -> tuple[PerImage, PerImage]:
        first, second = self.first, self.second
        if np.array_equal(first.index, second.index):
            return first, second
        common = np.intersect1d(first.index, second.index, assume_unique=True)
        return first.at(common), second.at(common)

    @cached_property
    def gaps(self) -> Values:
        """The difference of each image."""
        first, second = self._paired
        gaps: Values = first.values - second.values
        return gaps

    @cached_property
    def _centre_and_error(self) -> tuple[float, float]:
        gaps, photograph = self.gaps, self._paired[0].photograph
        if photograph is not None:
            _, place, counts = np.unique(photograph, return_inverse=True, return_counts=True)
            gaps = np.bincount(place, gaps) / counts
        n = len(gaps)
        centre = float(gaps.sum()) / (n + 2)
        return centre, math.sqrt(((float(gaps @ gaps) + 2) / (n + 2) - centre**2) / (n + 2))

    @cached_property
    def _resampled(self) -> Values | None:
        first, second = self._paired
        if first.trainings is None and second.trainings is None:
            return None
        own, other = (one.resampled_with(0) if self.same_trainings else one.resampled for one in (first, second))
        gaps: Values = own - other
        return gaps

    @property
    def estimate(self) -> Estimate:
        """The mean difference with its 95 % interval."""
        n = len(self.gaps)
        if n == 0:
            return NOTHING
        value, (centre, error) = float(self.gaps.mean()), self._centre_and_error
        low, high = max(-1.0, centre - _Z * error), min(1.0, centre + _Z * error)
        if self._resampled is not None:
            first, last = np.percentile(self._resampled, (2.5, 97.5))
            low, high = min(low, float(first)), max(high, float(last))
        return Estimate(value, min(value, low), max(value, high), n)

    @property
    def p_value(self) -> float:
        """Of no difference, two-sided; below 0.05 where the interval excludes zero. 1 without a common image."""
        if len(self.gaps) == 0:
            return 1.0
        centre, error = self._centre_and_error
        p = 2 * (1 - NormalDist().cdf(abs(centre) / error))
        if self._resampled is not None:
            below, above = (float(np.mean(side)) for side in (self._resampled <= 0, self._resampled >= 0))
            p = max(p, 2 * min(below, above))
        return min(1.0, p)


def difference(first: PerImage, second: PerImage) -> Estimate:
    """Mean of `first` − `second` over the images that both have, with a paired 95 % interval; see `Comparison`."""
    return Comparison(first, second).estimate


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
        first, last = np.percentile(rates, (2.5, 97.5))
        low, high = min(low, float(first)), max(high, float(last))
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
