"""Volumization: slices and their order, and measures against other libraries."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from sklearn.metrics import mutual_info_score
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import InputError

from ..toys import plugin_module, streams

measures, volume = (plugin_module(f"defenses.{name}") for name in ("_measures", "_volume"))
MEASURES = sorted(measures._MEASURES)


def pictures(count: int, height: int = 16, width: int = 24, channels: int = 3, seed: int = 0) -> Tensor:
    """Smooth random images on the 8-bit grid."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    fine = torch.rand(count, channels, height, width, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    return ((0.8 * smooth + 0.2 * fine) * 255).round() / 255


# ------------------------------------------------------------------ slices and their order


@pytest.mark.parametrize(("shape", "size"), [((16, 24), 8), ((16, 24), 4), ((32, 32), 16), ((6, 6), 1), ((8, 8), 8)])
def test_slices_are_the_tiles_in_reading_order(shape: tuple[int, int], size: int) -> None:
    images = pictures(3, *shape)
    slices = volume.Slicing(size).cut(images)
    assert slices.shape == (3, shape[0] * shape[1] // size**2, 3, size, size)
    corners = itertools.product(range(0, shape[0], size), range(0, shape[1], size))
    for place, (row, column) in enumerate(corners):
        assert torch.equal(slices[:, place], images[:, :, row : row + size, column : column + size])


@pytest.mark.parametrize("measure", MEASURES)
def test_a_volume_stacks_every_slice_in_its_order(measure: str) -> None:
    images = pictures(5)
    slicing, ranking = volume.Slicing(8), volume.Ranking(measure)
    slices = slicing.cut(images)
    order = ranking.order(slices.flatten(2))
    stacked = volume.Volumizer(slicing, ranking).volume(images, streams(5))
    assert stacked.shape == (5, 3, 6, 8, 8)
    assert torch.equal(order.sort(dim=1).values, torch.arange(6).expand(5, 6))
    assert not torch.equal(stacked, slices.transpose(1, 2))
    for sliced, places, volume_of in zip(slices, order, stacked.transpose(1, 2), strict=True):
        assert torch.equal(sliced[places], volume_of)


def test_images_that_slices_do_not_divide_are_refused_or_reflected() -> None:
    images = pictures(2, 10, 15)
    with pytest.raises(InputError, match="Choose one of 1, 5, or pad=reflect"):
        volume.Slicing(4).cut(images)
    slicing = volume.Slicing(4, "reflect")
    slices = slicing.cut(images)
    assert slices.shape == (2, 12, 3, 4, 4)
    assert torch.equal(slices[:, 5], images[:, :, 4:8, 4:8])
    assert torch.equal(slices[:, -1, :, 2, 3], images[:, :, 8, 13])
    with pytest.raises(InputError, match="at most 10"):
        volume.Slicing(32, "reflect").cut(images)


@pytest.mark.parametrize("pad", [(8, "none"), (7, "reflect")])
def test_the_reach_of_a_slice_is_where_its_gradient_is(pad: tuple[int, Any]) -> None:
    slicing = volume.Slicing(*pad)
    images = pictures(1, 16, 24).requires_grad_()
    slices = slicing.cut(images)
    for place, reached in enumerate(slicing.reach(16, 24)):
        (gradient,) = torch.autograd.grad(slices[0, place].sum(), images, retain_graph=True)
        assert torch.equal(gradient[0].ne(0).any(0), reached)


@pytest.mark.parametrize("measure", MEASURES)
def test_scores_are_sorted_and_the_reference_comes_first(measure: str) -> None:
    slices = volume.Slicing(8).cut(pictures(6)).flatten(2)
    ranking = volume.Ranking(measure)
    ranked = ranking.scores(slices).gather(1, ranking.order(slices))
    assert (ranked[:, 1:] >= ranked[:, :-1]).all()
    first = ranking.order(slices)[:, 0]
    assert torch.equal(first, measures.score("entropy", slices).argmin(1))
    falling = replace(ranking, descending=True)
    found = falling.scores(slices).gather(1, falling.order(slices))
    assert (found[:, 1:] <= found[:, :-1]).all()
    if measure != "entropy":
        assert torch.equal(falling.order(slices)[:, 0], first)


def test_a_similarity_ranks_as_a_distance_or_as_printed() -> None:
    slices = volume.Slicing(8).cut(pictures(4)).flatten(2)
    scores = measures.score("psnr", slices, slices[:, 2:3])
    near = volume.Ranking("psnr", reference=2)
    raw = replace(near, convention="raw")
    assert torch.equal(near.order(slices), scores.argsort(dim=1, descending=True, stable=True))
    assert torch.equal(raw.order(slices), scores.argsort(dim=1, stable=True))
    assert (raw.order(slices)[:, -1] == 2).all()  # its PSNR with itself is infinite
    assert (volume.Ranking("psnr", reference=0).order(slices)[:, 0] == 0).all()


def test_the_reference_is_the_slice_of_the_least_or_the_most_entropy() -> None:
    slices = volume.Slicing(8).cut(pictures(4)).flatten(2)
    entropies = measures.score("entropy", slices)
    for name, wanted in (("min-entropy", entropies.argmin(1)), ("max-entropy", entropies.argmax(1))):
        assert torch.equal(volume.Ranking("mse", reference=name).order(slices)[:, 0], wanted)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("descending", [False, True])
def test_ties_stay_in_reading_order(measure: str, descending: bool) -> None:
    same = pictures(2, 8, 8).flatten(1)[:, None].expand(2, 5, -1)
    shuffled = same[:, :, torch.randperm(192, generator=torch.Generator().manual_seed(0))]
    slices = torch.cat([same, shuffled[:, :2]], 1) if measure == "entropy" else same
    order = volume.Ranking(measure, descending=descending).order(slices)
    assert torch.equal(order, torch.arange(slices.shape[1]).expand_as(order))


def test_raster_and_random_are_the_tiles_and_a_shuffle_of_their_own_stream() -> None:
    images = pictures(4, 16, 16)
    tiles = volume.Slicing(4).cut(images)
    raster = volume.Volumizer(volume.Slicing(4), "raster").volume(images, streams(4))
    assert torch.equal(raster.transpose(1, 2), tiles)
    shuffled = volume.Volumizer(volume.Slicing(4), "random")
    stacked = shuffled.volume(images, streams(4))
    assert not torch.equal(stacked, raster)
    assert torch.equal(stacked.sort(dim=2).values, raster.sort(dim=2).values)
    assert torch.equal(shuffled.volume(images[2:], streams(4)[2:]), stacked[2:])


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_go_back_to_where_the_slices_came_from(measure: str) -> None:
    images = pictures(3).requires_grad_()
    slicing, ranking = volume.Slicing(8), volume.Ranking(measure)
    stacked = volume.Volumizer(slicing, ranking).volume(images, streams(3))
    weights = torch.rand(stacked.shape, generator=torch.Generator().manual_seed(3))
    (gradient,) = torch.autograd.grad((weights * stacked).sum(), images)
    order = ranking.order(slicing.cut(images.detach()).flatten(2))
    for sliced, places, expected in zip(slicing.cut(gradient), order, weights.transpose(1, 2), strict=True):
        assert torch.equal(sliced[places], expected)


# ------------------------------------------------------------------ measures


def oracle(measure: str, one: np.ndarray, other: np.ndarray, bins: int) -> float:
    """The measure by NumPy, SciPy and scikit-learn."""
    levels, beside = ((np.round(255 * values) * bins // 256).astype(int) for values in (one, other))
    own, theirs = (np.bincount(values, minlength=bins) / len(one) for values in (levels, beside))
    pairs = np.unique(np.stack([levels, beside]), axis=1, return_counts=True)[1]
    error = float(np.mean((one - other) ** 2))
    covariance = np.cov(one, other, bias=True)
    found = {
        "entropy": lambda: scipy_entropy(own, base=2),
        "joint-entropy": lambda: scipy_entropy(pairs, base=2),
        "mutual-information": lambda: mutual_info_score(levels, beside) / np.log(2),
        "kl": lambda: scipy_entropy(own + 1e-6, theirs + 1e-6, base=2),
        "ssim": lambda: (
            (2 * one.mean() * other.mean() + 1e-4) * (2 * covariance[0, 1] + 9e-4)
            / ((one.mean() ** 2 + other.mean() ** 2 + 1e-4) * (covariance[0, 0] + covariance[1, 1] + 9e-4))
        ),
        "max-norm": lambda: max(one.max(), other.max()),
        "max-norm-diff": lambda: np.linalg.norm(one - other, np.inf),
        "l1": lambda: np.linalg.norm(one - other, 1),
        "l2": lambda: np.linalg.norm(one - other),
        "psnr": lambda: 20 * np.log10(1 / np.sqrt(error)) if error else np.inf,
        "mse": lambda: error,
    }  # fmt: skip
    return float(found[measure]())


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("bins", [256, 16])
def test_measures_equal_numpy_scipy_and_scikit_learn(measure: str, bins: int) -> None:
    slices = volume.Slicing(8).cut(pictures(3)).flatten(2)
    slices[0, 1] = 0.5  # a flat one
    found = measures.score(measure, slices, slices[:, 3:4], bins)
    for image, place in itertools.product(range(3), range(6)):
        wanted = oracle(measure, slices[image, place].double().numpy(), slices[image, 3].double().numpy(), bins)
        assert float(found[image, place]) == pytest.approx(wanted, abs=1e-8)


def test_the_names_of_the_measures_are_those_of_the_parameter() -> None:
    assert set(MEASURES) == set(measures.Measure.__args__)
    assert {*measures.STANDALONE, *measures.SIMILARITIES} <= set(MEASURES)


@pytest.mark.parametrize("bins", [256, 16])
def test_information_keeps_its_laws(bins: int) -> None:
    one, other = (volume.Slicing(8).cut(pictures(4, seed=seed)).flatten(2) for seed in (0, 1))

    def of(measure: str, left: Tensor, right: Tensor) -> Tensor:
        """Of slices side by side, each with the one at its place."""
        found: Tensor = measures.score(measure, left.flatten(0, 1)[:, None], right.flatten(0, 1)[:, None], bins)
        return found.reshape(4, 6)

    alone, beside = of("entropy", one, one), of("entropy", other, other)
    shared, joint = of("mutual-information", one, other), of("joint-entropy", one, other)
    assert torch.equal(of("mutual-information", one, one), alone)
    assert torch.equal(shared, of("mutual-information", other, one))
    assert (shared >= 0).all()
    assert (joint >= torch.maximum(alone, beside)).all()
    assert (alone <= np.log2(min(192, bins))).all()
    assert torch.equal(of("entropy", torch.full_like(one, 0.3), one), torch.zeros(4, 6, dtype=torch.float64))
    divergence = of("kl", one, other)
    assert (divergence > 0).all()
    assert divergence.isfinite().all()
    assert torch.equal(of("kl", one, one), torch.zeros(4, 6, dtype=torch.float64))


def test_psnr_falls_as_the_squared_error_grows() -> None:
    slices = volume.Slicing(8).cut(pictures(3)).flatten(2)
    error, peak = (measures.score(name, slices, slices[:, :1]) for name in ("mse", "psnr"))
    assert torch.equal(error.argsort(dim=1), peak.argsort(dim=1, descending=True))


@pytest.mark.parametrize("measure", MEASURES)
def test_scores_do_not_depend_on_the_batch_nor_on_the_pieces(measure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = volume.Slicing(4).cut(pictures(7)).flatten(2)
    together = measures.score(measure, slices, slices[:, :1])
    assert torch.equal(measures.score(measure, slices[3:5], slices[3:5, :1]), together[3:5])
    monkeypatch.setattr(measures, "_VALUES_AT_ONCE", 1000)
    assert torch.equal(measures.score(measure, slices, slices[:, :1]), together)


def test_a_distance_without_a_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="reference"):
        measures.score("mse", torch.rand(1, 2, 3))
