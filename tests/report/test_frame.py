"""The frame of all records, with times and with what the boards say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.records.schema import Latency
from bench.report.frame import load_results

from ..builders import LGS, both, facts, outcome, saved


def test_load_results_carries_times_flags_ranks_and_the_worst_case(tmp_path: Path) -> None:
    time = Latency("cifar10", "photos-cnn", "lgs", {32: {"bare": 1.0, "defended": 1.5, "ratio": 1.5}}, "m")
    kept = [0.0] * 100 + [1.0] * 100 + [0.0] * 200
    other = outcome("sparse-rs", "lgs", "adaptive", facts(0.25, defended_attacked=kept))
    dead = outcome("patch", "lgs", "adaptive", facts(0.4, noted={"zero_gradient": [0.9] * 400}))
    frame = load_results(saved(tmp_path, *LGS[:3], dead, *both("sparse-rs", "none", 0.1, 0.1), other, time))
    rows = frame.set_index(["defense", "attack", "tier"]).sort_index()
    row = rows.loc["lgs", "patch", "adaptive"]
    assert (row["latency_ms_32"], row["latency_ratio_32"]) == (1.5, 1.5)
    assert row["attacked_accuracy"] == pytest.approx(0.4)
    assert row["worst_case"] == pytest.approx(0.15)  # images 100 to 159
    assert row["worst_case_low"] < 0.15 < row["worst_case_high"]
    assert row["flags"].split() == ["S06"]
    assert rows.loc["none", "patch", "adaptive"]["worst_case"] == pytest.approx(0.1)
    assert row["rank"] == ""


def test_load_results_of_no_records_is_empty(tmp_path: Path) -> None:
    assert load_results(tmp_path).empty
