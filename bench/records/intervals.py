"""Means and paired differences over images, with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from statistics import NormalDist
from zlib import crc32

import numpy as np
from jaxtyping import Float, Int

Places = Int[np.ndarray, "n"]
Values = Float[np.ndarray, "n"]
Trainings = Float[np.ndarray, "s n"]
_RESAMPLES = 2000
"""Of a bootstrap."""
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
        low, high = widened(low, high, vector.resampled)
    return Estimate(value, low, high, n)


def widened(low: float, high: float, resampled: Values) -> tuple[float, float]:
    """The interval, widened where needed to hold the middle 95 % of a bootstrap's means."""
    first, last = np.percentile(resampled, (2.5, 97.5))
    return min(low, float(first)), max(high, float(last))


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
            low, high = widened(low, high, self._resampled)
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
