"""Records as runs of an experiment tracker: MLflow, or Weights & Biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.errors import InputError, MissingExtraError
from bench.plugins.specs import check_known

if TYPE_CHECKING:
    import pandas

_OF_CELL = ("dataset", "model", "attack", "defense", "tier", "goal", "effort", "images", "seed")


def export_to(frame: pandas.DataFrame, tracker: str, project: str) -> int:
    """Writes a run for each cell: what the cell is as parameters, its numbers as metrics.

    Where the runs go is for the tracker's own settings to say (MLFLOW_TRACKING_URI, WANDB_MODE …).

    Args:
        frame: the records, as `bench.load_results` has them.
        tracker: mlflow or wandb.
        project: MLflow's experiment, or Weights & Biases' project.

    Returns:
        The number of runs.

    Raises:
        InputError: there are no records, or no such tracker.
        MissingExtraError: its package is not installed.
    """
    check_known(tracker, _TRACKERS, "tracker")
    if frame.empty:
        raise InputError("Expected records in the results folder, but there are none. 'bench run' makes them.")
    try:
        library = import_module(tracker)
    except ImportError as error:
        raise MissingExtraError(f"The export to {tracker}", tracker) from error
    runs = list(_runs(frame))
    _TRACKERS[tracker](library, project, runs)
    return len(runs)


_Run = tuple[str, dict[str, Any], dict[str, float]]
"""Name, parameters and metrics."""


def _runs(frame: pandas.DataFrame) -> Iterator[_Run]:
    for row in frame.to_dict("records"):
        parameters = {key: row[key] for key in (*_OF_CELL, "status")}
        metrics = {
            str(key): float(value)
            for key, value in row.items()
            if key not in parameters and isinstance(value, int | float) and math.isfinite(value)
        }
        yield f"{row['attack']} × {row['defense']}, {row['tier']}", parameters, metrics


def _to_mlflow(mlflow: Any, project: str, runs: list[_Run]) -> None:
    mlflow.set_experiment(project)
    for name, parameters, metrics in runs:
        with mlflow.start_run(run_name=name):
            mlflow.log_params(parameters)
            mlflow.log_metrics(metrics)


def _to_wandb(wandb: Any, project: str, runs: list[_Run]) -> None:
    for name, parameters, metrics in runs:
        with wandb.init(project=project, name=name, config=parameters, reinit=True) as run:
            run.log(metrics)


_TRACKERS: dict[str, Callable[[Any, str, list[_Run]], None]] = {"mlflow": _to_mlflow, "wandb": _to_wandb}
