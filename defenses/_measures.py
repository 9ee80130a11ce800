"""The measures in Table 1 of "Immunizing Image Classifiers Against Localized Adversary Attacks", for many slices.

Ghebrechristos and Alaghband (2024), after their "Deep curriculum learning optimization" (SN Computer Science 2020).
The symbols of a slice are its values: q = round(255 x), all channels together, in `bins` levels.

    H(x)      = −Σ b log₂ b                        b: the histogram of x, as shares
    JE(x, r)  = −Σ b log₂ b                        b: the histogram of pairs of values at the same place
    MI(x, r)  = H(x) + H(r) − JE(x, r)
    KL(x, r)  = Σ bₓ log₂ (bₓ / bᵣ)                histograms with ε = 10⁻⁶ added to each level
    SSIM(x, r) = (2μₓμᵣ + C₁)(2σₓᵣ + C₂) / ((μₓ² + μᵣ² + C₁)(σₓ² + σᵣ² + C₂)), C₁ = 0.01², C₂ = 0.03²
    MSE(x, r) = mean (x − r)²;   PSNR = −10 log₁₀ MSE;   max norm = the largest value of either

Departures: the paper prints entropy as Σ b log(N/b) and the joint entropy as a marginal one; these are the usual
definitions. Without ε, the KL divergence is infinite as soon as a level is missing from the reference, which is common
in small slices. The authors' max norm is not a distance between the two; `max-norm-diff` is the largest difference, and
`l1` and `l2` are norms of the difference.

Entropies are exact: Σ c log₂ c over the counts c is summed in integers (units of 2⁻³²), so that slices with the same
counts tie, on any device and in any batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bench.memory import in_pieces

Values = Float[Tensor, "#n #z v"]
Symbols = Int[Tensor, "#n #z v"]
Scores = Float[Tensor, "n z"]
Measure = Literal[
    "entropy",
    "joint-entropy",
    "mutual-information",
    "kl",
    "ssim",
    "max-norm",
    "max-norm-diff",
    "l1",
    "l2",
    "psnr",
    "mse",
]
STANDALONE = ("entropy",)
"""Measures without a reference."""
SIMILARITIES = ("mutual-information", "ssim", "psnr")
"""Measures that grow with the similarity to the reference; the others grow with the distance."""
_VALUES_AT_ONCE = 2**20
_UNIT = 2**32
_EPSILON = 1e-6
_DENSE = 2**10
"""Up to so many levels, a histogram is faster than sorting the symbols."""


def score(measure: Measure, slices: Float[Tensor, "n z v"], reference: Values | None = None, bins: int = 256) -> Scores:
    """The measure of each slice, relative to the reference if it needs one.

    Args:
        measure: its name.
        slices: the flattened slices of each image; values in [0, 1].
        reference: one slice for each image, or one for all, shape (n, 1, v); not needed for `STANDALONE` measures.
        bins: number of levels, a divisor of 256.

    Returns:
        float64; bits, decibels (infinite for equal slices), or in units of the values.

    Raises:
        ValueError: the measure needs a reference.
    """
    if reference is None and measure not in STANDALONE:
        raise ValueError(f"Expected a reference for the measure {measure!r}; only {STANDALONE[0]!r} needs none.")
    other = slices[:, :1] if reference is None else reference
    piece = max(1, _VALUES_AT_ONCE // max(1, slices[:, 0].numel()))

    def work(part: slice) -> Tensor:
        return _MEASURES[measure](slices[:, part].double(), other.double(), bins).T

    return in_pieces(work, slices.shape[1], piece).T


def _symbols(values: Values, bins: int) -> Symbols:
    return (values * 255).round().long() * bins // 256


def _surprise(symbols: Symbols, levels: int) -> Int[Tensor, "#n #z"]:
    """Entropy times the number of symbols, in units of 2⁻³²: n log₂ n − Σ c log₂ c over the counts c of the symbols."""
    size = symbols.shape[2]
    counts = torch.arange(size + 1, dtype=torch.float64)
    table = (counts * counts.clamp_min(1).log2() * _UNIT).round().long().to(symbols.device)
    if levels <= _DENSE:
        return table[size] - table[_histogram(symbols, levels)].sum(2)
    ordered = symbols.flatten(0, 1).sort(dim=1).values
    begins = torch.ones_like(ordered, dtype=torch.bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = begins.flatten().nonzero()[:, 0]
    lengths = starts.diff(append=starts.new_full((1,), ordered.numel()))
    known = table.new_zeros(len(ordered)).index_add_(0, starts // size, table[lengths])
    return table[size] - known.reshape(symbols.shape[:2])


def _histogram(symbols: Symbols, levels: int) -> Int[Tensor, "#n #z levels"]:
    empty = torch.zeros(*symbols.shape[:2], levels, dtype=torch.int64, device=symbols.device)
    return empty.scatter_add_(2, symbols, torch.ones_like(symbols))


def _bits(surprise: Int[Tensor, "n z"], size: int) -> Scores:
    return surprise.double() / (size * _UNIT)


def _entropy(slices: Values, reference: Values, bins: int) -> Scores:
    return _bits(_surprise(_symbols(slices, bins), bins), slices.shape[2])


def _joint_entropy(slices: Values, reference: Values, bins: int) -> Scores:
    pairs = _symbols(slices, bins) * bins + _symbols(reference, bins)
    return _bits(_surprise(pairs, bins**2), slices.shape[2])


def _mutual_information(slices: Values, reference: Values, bins: int) -> Scores:
    own, other = _symbols(slices, bins), _symbols(reference, bins)
    shared = _surprise(own, bins) + _surprise(other, bins) - _surprise(own * bins + other, bins**2)
    return _bits(shared.clamp_min(0), slices.shape[2])


def _kl(slices: Values, reference: Values, bins: int) -> Scores:
    own, other = (_smoothed(_symbols(values, bins), bins) for values in (slices, reference))
    return (own * (own / other).log2()).sum(2)


def _smoothed(symbols: Symbols, bins: int) -> Float[Tensor, "#n #z bins"]:
    """The histogram as shares, with ε added to each level."""
    return (_histogram(symbols, bins).double() / symbols.shape[2] + _EPSILON) / (1 + bins * _EPSILON)


def _ssim(slices: Values, reference: Values, bins: int) -> Scores:
    means = slices.mean(2), reference.mean(2)
    own, other = slices - means[0][..., None], reference - means[1][..., None]
    brightness = (2 * means[0] * means[1] + 0.01**2) / (means[0] ** 2 + means[1] ** 2 + 0.01**2)
    variances = own.square().mean(2) + other.square().mean(2)
    return brightness * (2 * (own * other).mean(2) + 0.03**2) / (variances + 0.03**2)


def _mse(slices: Values, reference: Values, bins: int) -> Scores:
    return (slices - reference).square().mean(2)


_MEASURES: dict[Measure, Callable[[Values, Values, int], Scores]] = {
    "entropy": _entropy,
    "joint-entropy": _joint_entropy,
    "mutual-information": _mutual_information,
    "kl": _kl,
    "ssim": _ssim,
    "max-norm": lambda slices, reference, bins: torch.maximum(slices.amax(2), reference.amax(2)),
    "max-norm-diff": lambda slices, reference, bins: (slices - reference).abs().amax(2),
    "l1": lambda slices, reference, bins: (slices - reference).abs().sum(2),
    "l2": lambda slices, reference, bins: (slices - reference).square().sum(2).sqrt(),
    "psnr": lambda slices, reference, bins: -10 * _mse(slices, reference, bins).log10(),
    "mse": _mse,
}
