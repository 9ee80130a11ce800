"""Measures: against SciPy, against simulation, and where there is nothing to count."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from bench.errors import InputError
from bench.records import intervals, metrics
from bench.records.intervals import PerImage, difference, mean
from bench.records.metrics import Design, worst_case
from bench.records.schema import Cell, Facts, Outcome, PluginRecord
from bench.records.store import Store
from bench.report.frame import load_results


def vector(*values: float) -> PerImage:
    return PerImage(np.arange(len(values)), np.asarray(values, dtype=float))


def facts(**given: object) -> Facts:
    """Four images: the bare model loses images 1 and 2, the defended one saves 1 and has 3 wrong from the start."""
    base: dict[str, object] = {
        "index": [3, 5, 8, 9],
        "label": [0, 1, 0, 1],
        "eligible": [1, 1, 1, 0],
        "bare_clean": [1, 1, 1, 0],
        "bare_attacked": [1, 0, 0, 0],
        "defended_clean": [1, 1, 1, 0],
        "defended_attacked": [1, 1, 0, 0],
        "defended_attacked_8bit": [1, 1, 1, 0],
        "reached": [0, 0, 1, 0],
    }
    return Facts(**{**base, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 7), (94, 100), (470, 500), (1, 1000)])
def test_the_interval_of_an_accuracy_is_scipys_wilson_interval(hits: int, n: int) -> None:
    estimate = mean(vector(*[1.0] * hits, *[0.0] * (n - hits)))
    expected = binomtest(hits, n).proportion_ci(method="wilson")
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert estimate.value == pytest.approx(hits / n)


def test_measures_of_a_cell_are_what_one_counts_by_hand() -> None:
    one = facts(
        defended_occluded=[1, 1, 1, 0],
        rejected_clean=[0, 0, 0, 1],
        rejected_attacked=[0, 1, 0, 1],
        certified=[1, 0, 0, 0],
    )
    expected = {
        "clean_accuracy": (3 / 4, 4),
        "attacked_accuracy": (2 / 4, 4),
        "accuracy_8bit": (3 / 4, 4),
        "delta": (1 / 4, 4),
        "beta": (1 / 2, 2),
        "attack_success": (1 / 3, 3),
        "robustness": (2 / 3, 3),
        "adversarial_effect": (1 / 4, 4),
        "rejection_clean": (1 / 4, 4),
        "rejection_attacked": (2 / 4, 4),
        "certified_accuracy": (1 / 4, 4),
    }
    found = {name: measure(one) for name, measure in metrics.MEASURES.items()}
    assert {
        name: (pytest.approx(estimate.value), estimate.n) for name, estimate in found.items() if estimate
    } == expected
    assert all(estimate.low <= estimate.value <= estimate.high for estimate in found.values() if estimate)


def test_beta_without_a_fooled_image_is_no_number() -> None:
    estimate = metrics.beta(facts(bare_attacked=[1, 1, 1, 0]))
    assert estimate is not None
    assert estimate.n == 0
    assert math.isnan(estimate.value)


def test_attack_success_without_an_eligible_image_is_no_number() -> None:
    estimate = metrics.attack_success(facts(eligible=[0, 0, 0, 0]))
    assert estimate is not None
    assert estimate.n == 0
    assert math.isnan(estimate.value)


@pytest.mark.parametrize("name", ["adversarial_effect", "rejection_clean", "certified_accuracy"])
def test_a_fact_that_was_not_recorded_gives_no_estimate(name: str) -> None:
    assert metrics.MEASURES[name](facts()) is None


def test_several_seeds_count_each_image_once_with_its_mean() -> None:
    other = facts(index=[3, 5, 8, 11], defended_attacked=[0, 1, 0, 1])
    estimate = metrics.attacked_accuracy(facts(), other)
    assert estimate is not None
    assert estimate.n == 5
    assert estimate.value == pytest.approx((0.5 + 1 + 0 + 0 + 1) / 5)


def test_a_difference_is_paired_by_the_place_of_an_image_not_by_its_position() -> None:
    first = PerImage(np.array([1, 2, 3]), np.array([1.0, 0.0, 1.0]))
    second = PerImage(np.array([2, 3, 4]), np.array([0.0, 1.0, 0.0]))
    estimate = difference(first, second)
    assert (estimate.value, estimate.n) == (0.0, 2)


def test_a_difference_without_common_images_is_no_number() -> None:
    estimate = difference(vector(1.0), PerImage(np.array([7]), np.array([1.0])))
    assert estimate.n == 0
    assert math.isnan(estimate.value)


def test_no_difference_on_few_images_is_not_certainty() -> None:
    estimate = difference(vector(*[1.0, 0.0] * 10), vector(*[1.0, 0.0] * 10))
    assert estimate.low < -0.02 < 0.02 < estimate.high


def test_the_paired_interval_is_narrower_than_an_unpaired_one_where_images_agree() -> None:
    first = vector(*[1.0] * 60, *[0.0] * 40)
    second = vector(*[1.0] * 50, *[0.0] * 50)
    shuffled = vector(*[0.0] * 50, *[1.0] * 50)
    paired, unpaired = difference(first, second), difference(first, shuffled)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.low > 0 > unpaired.low


def _binary(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    draw = rng.random(n)
    return (draw < 0.8).astype(float), ((draw < 0.7) | (draw > 0.97)).astype(float), 0.8 - 0.73


def _rare(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    draw = rng.random(n)
    return (draw < 0.95).astype(float), (draw < 0.9).astype(float), 0.05


def _shares(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    """One defense is random (shares of ten draws), the other is not."""
    level = rng.beta(0.5, 0.5, n)
    return rng.binomial(10, level) / 10, (rng.random(n) < level).astype(float), 0.0


def _agreeing(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray, float]:
    draw = rng.random(n)
    return (draw < 0.55).astype(float), (draw < 0.5).astype(float), 0.05


@pytest.mark.parametrize("draw", [_binary, _rare, _shares, _agreeing])
@pytest.mark.parametrize("n", [60, 200])
def test_the_paired_interval_holds_the_truth_in_about_95_of_100_cases(draw, n: int) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(1000):
        first, second, truth = draw(rng, n)
        estimate = difference(vector(*first), vector(*second))
        hits += estimate.low <= truth <= estimate.high
    assert hits >= 930


def test_the_worst_case_takes_the_minimum_for_each_image_and_never_the_mean() -> None:
    first = facts(defended_attacked=[1, 0, 1, 0], bare_attacked=[1, 1, 0, 0], reached=[0, 1, 0, 0])
    second = facts(index=[9, 8, 5, 3], defended_attacked=[0, 0, 1, 1], bare_attacked=[0, 1, 0, 1], reached=[0, 1, 0, 0])
    worst = worst_case([first, second])
    assert worst.index == [3, 5, 8, 9]
    assert worst.defended_attacked == [1, 0, 0, 0]
    assert worst.bare_attacked == [1, 0, 0, 0]
    assert worst.reached == [0, 1, 1, 0]


def test_a_detector_gets_no_credit_for_rejecting_what_it_rejects_without_an_attack() -> None:
    alarms = {"rejected_clean": [1, 1, 0, 0], "rejected_attacked": [1, 0, 1, 0], "defended_clean": [0, 0, 1, 0]}
    detector = facts(**alarms, defended_attacked=[1, 1, 1, 0], defended_attacked_8bit=[1, 1, 1, 0])
    assert metrics.attacked_accuracy(detector).value == 2 / 4
    assert metrics.accuracy_8bit(detector).value == 2 / 4
    assert metrics.beta(detector).value == 1
    assert worst_case([detector, detector]).defended_attacked == [0, 1, 1, 0]
    unchanged = facts(**alarms, defended_attacked=[0, 0, 1, 0])
    assert metrics.attacked_accuracy(unchanged).value == 1 / 4


def test_the_worst_case_keeps_only_images_that_all_attacks_have() -> None:
    worst = worst_case([facts(), facts(index=[8, 9, 10, 11], defended_attacked=[0, 0, 1, 1])])
    assert worst.index == [8, 9]
    assert worst.defended_attacked == [0, 0]


TRAINED = Design(trainings=True)
TEN_PHOTOGRAPHS = Design(photographs=True)


def trained(*levels: float, n: int = 400) -> list[Facts]:
    """The facts of several trainings, each with its own accuracy under attack."""
    rows = []
    for level in levels:
        kept = (np.arange(n) % 100 < round(100 * level)).astype(int).tolist()
        ones = [1] * n
        rows.append(
            facts(index=list(range(n)), label=[one % 10 for one in range(n)], eligible=ones, bare_clean=ones,
                  bare_attacked=[0] * n, defended_clean=ones, defended_attacked=kept, defended_attacked_8bit=kept,
                  reached=[1 - one for one in kept])
        )  # fmt: skip
    return rows


def test_the_interval_of_a_trained_row_reaches_from_training_to_training() -> None:
    rows = trained(0.515, 0.865, 0.55)
    fixed, estimate = metrics.attacked_accuracy(*rows), metrics.attacked_accuracy(*rows, design=TRAINED)
    assert fixed is not None
    assert estimate is not None
    assert estimate.value == fixed.value == pytest.approx(0.6433, abs=0.01)
    assert fixed.high - fixed.low < 0.1
    assert estimate.low < 0.55
    assert estimate.high > 0.8
    assert estimate == metrics.attacked_accuracy(*rows, design=TRAINED)


@pytest.mark.parametrize("trainings", [2, 3, 5])
def test_intervals_over_a_few_trainings_hold_what_new_trainings_would_give(trainings: int) -> None:
    rng = np.random.default_rng(0)

    def row() -> PerImage:
        levels = rng.normal(0.5, 0.1, (trainings, 1))
        table = (rng.random((trainings, 300)) < levels).astype(float)
        return PerImage(np.arange(300), table.mean(0), trainings=table)

    pairs = [(row(), row()) for _ in range(60)]
    estimates = [intervals.mean(one) for one, _ in pairs]
    assert sum(one.low <= 0.5 <= one.high for one in estimates) >= 55
    assert sum(intervals.Comparison(*pair).p_value < 0.05 for pair in pairs) <= 5


def test_resampled_means_do_not_depend_on_the_order_of_a_sum() -> None:
    table = np.random.default_rng(0).integers(0, 2, (3, 90)).astype(float)
    row, reverse = (PerImage(np.arange(90), one.mean(0), trainings=one) for one in (table, 1 - table))
    assert np.array_equal(row.resampled_with(0), (1 - reverse.resampled_with(0)).round(12))


def test_the_difference_between_trainings_does_not_widen_what_they_all_lose_alike() -> None:
    rows = [replace(one, defended_clean=[1] * 400) for one in trained(0.5, 0.5, 0.5)]
    wide = [replace(one, defended_clean=one.defended_attacked) for one in trained(0.3, 0.9, 0.5)]
    alike, lost = metrics.delta(*wide, design=TRAINED), metrics.delta(*rows, design=TRAINED)
    assert alike is not None
    assert lost is not None
    assert alike.high - alike.low < 0.03
    assert lost.value == 0.5


def test_crops_of_ten_photographs_count_as_ten() -> None:
    (row,) = trained(0.6)
    alone, clustered = metrics.attacked_accuracy(row), metrics.attacked_accuracy(row, design=TEN_PHOTOGRAPHS)
    assert alone is not None
    assert clustered is not None
    assert clustered.value == alone.value
    assert (clustered.low, clustered.high) == intervals.wilson(alone.value, 10)


def test_the_interval_over_photographs_covers_the_mean_of_new_photographs() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        levels = np.clip(rng.normal(0.6, 0.3, 10), 0, 1)
        kept = (rng.random(200) < np.repeat(levels, 20)).astype(float)
        hidden = PerImage(np.arange(200), kept, np.repeat(np.arange(10), 20))
        estimate = mean(hidden)
        hits += estimate.low <= 0.59 <= estimate.high  # the mean of such a level
    assert hits >= 185


def test_attack_success_of_a_random_defense_counts_all_draws() -> None:
    row = facts(
        eligible=[1, 0, 1, 0], defended_clean=[1, 0.5, 0.5, 0], defended_attacked=[0.5, 0, 0.5, 0],
        reached=[0.5, 0, 0.5, 0],
    )  # fmt: skip
    estimate = metrics.attack_success(row)
    assert estimate is not None
    assert estimate.value == pytest.approx((0.5 + 0.5 * 1 + 0.5 * 0.5) / 2)


def _outcome(**given: object) -> Outcome:
    cell = Cell("photos", "cnn", "patch", "lgs", "adaptive")
    record = PluginRecord(
        "patch", "Patch", "", {}, {"threat_model": "patch", "budget": "patch ≤ 5 %", "access": "none"}
    )
    defense = PluginRecord("lgs", "LGS", "", {}, {"kind": "transform"})
    whole = {"cell": cell, "status": "ok", "classes": 10, "attack": record, "defense": defense, "facts": facts()}
    return Outcome(**{**whole, **given})  # type: ignore[arg-type]


def test_load_results_has_a_row_for_each_record_and_no_number_for_a_failed_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(_outcome(queries={"forwards_mean": 12.0}, seconds={"attack": 1.5}))
    failed = replace(_outcome().cell, attack="boom")
    store.save(_outcome(cell=failed, status="error", reason="it broke", attack=None, facts=None))
    frame = load_results(tmp_path).set_index("attack")
    assert frame.loc["patch", "beta"] == 0.5
    assert frame.loc["patch", "beta_n"] == 2
    assert frame.loc["patch", "budget"] == "patch ≤ 5 %"
    assert frame.loc["patch", "queries_forwards_mean"] == 12.0
    assert frame.loc["boom", "status"] == "error"
    assert math.isnan(frame.loc["boom", "attacked_accuracy"])


def test_load_results_of_a_folder_with_a_broken_record_names_the_file(tmp_path: Path) -> None:
    path = Store(tmp_path).save(_outcome())
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=path.name):
        load_results(tmp_path)


def test_measures_and_tables_never_import_torch() -> None:
    code = "import sys, json, bench.records.metrics, bench.report.html; print(json.dumps('torch' in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) is False
