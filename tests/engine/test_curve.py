"""Curves: which parameter is varied, and ROC curves against scikit-learn's."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import auc, roc_auc_score

from bench.engine.roc import trace
from bench.engine.sweep import along
from bench.errors import InputError


def test_a_parameter_of_the_attacks_or_else_of_a_defense_is_varied() -> None:
    assert along("area=0.1,0.2,0.3", "patch:steps=5", "lgs") == (
        "patch:area=0.1,steps=5,patch:area=0.2,steps=5,patch:area=0.3,steps=5",
        "lgs",
    )
    assert along("quality=10,30,75", "fgsm", "none,jpeg") == (
        "fgsm",
        "none,jpeg:quality=10,jpeg:quality=30,jpeg:quality=75",
    )
    assert along("eps=1/255,2/255,4/255", "fgsm,ifgsm", "none")[0].count("fgsm:eps=") == 6


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        ("area=0.1,0.2", "at least 3"),
        ("area", "at least 3"),
        ("aera=1,2,3", "parameter of patch named 'aera'. Did you mean 'area'"),
        ("quality=1,2,3", "named 'quality'"),
    ],
)
def test_what_makes_no_curve_is_refused(over: str, reason: str) -> None:
    with pytest.raises(InputError, match=re.escape(reason)):
        along(over, "patch", "lgs")


def test_a_roc_curve_has_the_area_of_scikit_learn_and_holds_it_in_its_interval() -> None:
    drawn = np.random.default_rng(0)
    positive = np.arange(10) == drawn.integers(0, 10, 300)[:, None]
    scores = (drawn.normal(size=(300, 10)) + positive).round(1)  # with ties
    curve = trace(positive, scores)
    assert curve.auc == pytest.approx(roc_auc_score(positive.ravel(), scores.ravel()), abs=1e-4)
    assert curve.low < curve.auc < curve.high
    assert len(curve.false_positives) <= 101
    assert auc(curve.false_positives, curve.true_positives) == pytest.approx(curve.auc, abs=0.003)
    assert trace(positive, scores) == curve


@pytest.mark.parametrize(("shift", "area"), [(10.0, 1.0), (-10.0, 0.0)])
def test_what_is_told_apart_for_certain_has_all_of_the_area_or_none(shift: float, area: float) -> None:
    clean = np.linspace(0, 1, 50)
    scores = np.stack([clean, clean + shift], 1)
    curve = trace(np.broadcast_to([False, True], scores.shape), scores)
    assert (curve.auc, curve.low, curve.high) == (area, area, area)


def test_the_command_computes_draws_and_measures_and_the_check_holds(tmp_path: Path) -> None:
    line = "curve --attack fgsm --over eps=2/255,8/255,32/255 --defense squeeze:calibration_images=20,search=0 --roc "
    line += "--images 12 --tier oblivious --workers 0"
    command = [sys.executable, "-m", "bench", *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "measured 6 ROC curves" in done.stdout
    site = tmp_path / "results" / "site"
    assert len(list((site / "curves").glob("fgsm-eps-*.svg"))) == 3
    (data,) = (site / "curves").glob("fgsm-eps-*.csv")
    levels = [
        float(row["estimate"])
        for row in csv.DictReader(StringIO(data.read_text()))
        if row["line"] == "none" and row["measure"] == "attacked_accuracy"
    ]
    assert levels == sorted(levels, reverse=True)
    detectors = [path for path in (site / "curves").glob("roc-*.csv") if ",rejected," in path.read_text()]
    assert len(detectors) == 3
    check = [sys.executable, "-m", "bench", "report", "--check"]
    assert subprocess.run(check, cwd=tmp_path, check=False).returncode == 0
