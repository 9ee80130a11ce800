"""Records as runs of MLflow and Weights & Biases, with fakes of both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.errors import InputError
from bench.records.trackers import export_to
from bench.report.frame import load_results
from tests.builders import LGS, outcome, saved


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Fakes of both libraries that note what they are asked."""
    made: list[tuple[Any, ...]] = []

    @contextmanager
    def start_run(run_name: str) -> Iterator[None]:
        made.append(("start", run_name))
        yield
        made.append(("end",))

    @contextmanager
    def init(project: str, name: str, config: dict[str, Any], reinit: bool) -> Iterator[Any]:
        made.append(("start", name))
        made.append(("params", config))
        yield SimpleNamespace(log=lambda metrics: made.append(("metrics", metrics)))
        made.append(("end",))

    mlflow = SimpleNamespace(
        set_experiment=lambda name: made.append(("experiment", name)),
        start_run=start_run,
        log_params=lambda parameters: made.append(("params", parameters)),
        log_metrics=lambda metrics: made.append(("metrics", metrics)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return made


@pytest.mark.parametrize("tracker", ["mlflow", "wandb"])
def test_each_cell_is_a_run_with_its_words_and_its_numbers(
    tracker: str, calls: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    frame = load_results(saved(tmp_path, *LGS, outcome("patch", "jpeg", "adaptive", None)))
    assert export_to(frame, tracker, "mine") == 5
    names = [call[1] for call in calls if call[0] == "start"]
    assert "patch × lgs, adaptive" in names
    place = names.index("patch × lgs, adaptive")
    parameters = [call[1] for call in calls if call[0] == "params"][place]
    metrics = [call[1] for call in calls if call[0] == "metrics"][place]
    assert parameters["defense"] == "lgs"
    assert parameters["status"] == "ok"
    assert metrics["attacked_accuracy"] == pytest.approx(0.4)
    assert all(isinstance(value, float) and value == value for value in metrics.values())  # not NaN
    assert len([call for call in calls if call[0] == "end"]) == 5


def test_a_missing_tracker_or_missing_records_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    frame = load_results(saved(tmp_path, *LGS))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(InputError, match=r"pip install 'defense-bench\[mlflow\]'"):
        export_to(frame, "mlflow", "mine")
    with pytest.raises(InputError, match=r"No tracker named 'mlflaw'\. Did you mean 'mlflow'"):
        export_to(frame, "mlflaw", "mine")
    with pytest.raises(InputError, match="there are none"):
        export_to(frame.iloc[:0], "wandb", "mine")
