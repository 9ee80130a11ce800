from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from bench.contracts import Streams


def streams(seed: int = 0, count: int = 8) -> Streams:
    return Streams.of(seed, torch.arange(count))


@pytest.mark.parametrize("draw", ["uniform", "normal", "integers", "permutations"])
def test_an_image_draws_the_same_numbers_in_any_batch(draw: str) -> None:
    def numbers(rng: Streams) -> torch.Tensor:
        if draw == "integers":
            return rng.integers(1000, 5)
        return rng.permutations(7) if draw == "permutations" else getattr(rng, draw)(3, 2)

    whole = numbers(streams())
    parts = torch.cat([numbers(streams()[:3]), numbers(streams()[3:])])
    assert torch.equal(whole, parts)


def test_seeds_images_and_purposes_give_other_numbers() -> None:
    base = streams().uniform(4)
    assert not torch.equal(base, streams(1).uniform(4))
    assert not torch.equal(base, streams().derive("a").uniform(4))
    assert not torch.equal(streams().derive("a").uniform(4), streams().derive("b").uniform(4))
    assert not torch.equal(streams().derive(1).uniform(4), streams().derive(torch.full((8,), 2)).uniform(4))
    assert len(base.unique()) == base.numel()


def test_a_stream_goes_on_where_it_stopped() -> None:
    rng = streams()
    drawn = torch.cat([rng.uniform(2), rng.uniform(3)], dim=1)
    assert torch.equal(drawn, streams().uniform(5))


def test_streams_of_some_images_go_on_from_where_all_stopped() -> None:
    rng = streams()
    rng.uniform(2)
    assert torch.equal(rng[torch.tensor([5])].uniform(1), streams().uniform(3)[5:6, 2:])


def test_numbers_fit_their_distributions() -> None:
    rng = Streams.of(3, torch.arange(400))
    uniform = rng.uniform(250).flatten().double().numpy()
    assert 0 <= uniform.min() <= uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert stats.kstest(rng.normal(250).flatten().double().numpy(), "norm").pvalue > 1e-3
    counts = torch.bincount(rng.integers(7, 250).flatten(), minlength=7).numpy()
    assert stats.chisquare(counts).pvalue > 1e-3


def test_neighbouring_images_are_uncorrelated() -> None:
    drawn = Streams.of(0, torch.arange(50)).uniform(2000).double().numpy()
    correlations = np.corrcoef(drawn)[~np.eye(50, dtype=bool)]
    assert abs(correlations).max() < 5 / np.sqrt(2000)


def test_permutations_are_permutations() -> None:
    assert torch.equal(streams().permutations(9).sort(1).values, torch.arange(9).expand(8, 9))


def test_a_range_is_kept_and_filled() -> None:
    drawn = Streams.of(0, torch.arange(10)).uniform(1000, low=-2, high=3)
    assert -2 <= drawn.min() < -1.9
    assert 2.9 < drawn.max() <= 3
