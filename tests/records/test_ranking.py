"""Ranks: by value, with ties that few images and many rows widen, and nobody gains from a barred row."""

from __future__ import annotations

import numpy as np

from bench.records.intervals import PerImage, mean
from bench.records.ranking import better_than, holm, ranks


def first(level: float, n: int = 100) -> PerImage:
    """The first images survive."""
    return PerImage(np.arange(n), (np.arange(n) < round(level * n)).astype(float))


def test_holm_rejects_as_in_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == [True, False, False, True]
    assert holm([]) == []


def test_rows_share_a_rank_unless_their_paired_interval_excludes_zero() -> None:
    assert ranks({"low": first(0.4), "near": first(0.89), "high": first(0.9)}) == {"high": 1, "near": 1, "low": 3}


def test_a_row_is_ranked_by_its_value_however_wide_its_interval() -> None:
    assert ranks({"middle": first(0.5, 40), "zero": first(0.0, 40)}) == {"middle": 1, "zero": 2}


def test_a_small_sample_and_many_rows_widen_the_ties() -> None:
    assert ranks({"a": first(0.6, 20), "b": first(0.4, 20)}) == {"a": 1, "b": 1}
    pair = {"a": first(0.66), "b": first(0.6)}
    crowd = pair | {f"c{number}": first(0.6) for number in range(30)}
    assert ranks(pair) == {"a": 1, "b": 2}
    assert ranks(crowd)["b"] == 1


def test_no_row_that_a_barred_row_beats_gains_from_its_absence() -> None:
    rows = {"barred": first(0.9), "good": first(0.6), "bad": first(0.3)}
    assert ranks(rows, barred=["barred"]) == {"good": 2, "bad": 3}
    assert ranks({name: rows[name] for name in ("good", "bad")}) == {"good": 1, "bad": 2}


def test_no_row_ranks_above_one_with_a_higher_mean() -> None:
    rng = np.random.default_rng(0)
    rows = {str(one): PerImage(np.arange(80), (rng.random(80) < one).astype(float)) for one in rng.random(12)}
    places = ranks(rows)
    by_mean = sorted(((mean(vector).value, places[name]) for name, vector in rows.items()), reverse=True)
    assert [place for _, place in by_mean] == sorted(places.values())


def test_rows_with_different_images_are_compared_on_those_that_both_have() -> None:
    hard = PerImage(np.arange(100), np.repeat([1.0, 0.0], [70, 30]))
    few = PerImage(np.arange(60, 100), np.repeat([1.0, 0.0], [26, 14]))
    assert mean(hard).value > mean(few).value
    assert ranks({"hard": hard, "few": few}) == {"hard": 1, "few": 1}


def test_a_row_that_is_not_better_beyond_its_interval_is_not_better() -> None:
    assert better_than({"a": first(0.5), "b": first(0.22), "c": first(0.1)}, first(0.2)) == {"a"}


def test_trainings_that_differ_more_than_the_rows_tie_them() -> None:
    def row(*levels: float) -> PerImage:
        table = np.stack([first(level, 500).values for level in levels])
        return PerImage(np.arange(500), table.mean(0), trainings=table)

    assert ranks({"a": row(0.5, 0.87, 0.55), "b": row(0.5, 0.51, 0.52)}) == {"a": 1, "b": 1}
    assert ranks({"a": row(0.7, 0.71, 0.72), "b": row(0.5, 0.51, 0.52)}) == {"a": 1, "b": 2}
