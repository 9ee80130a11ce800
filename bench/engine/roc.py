"""ROC curves of a defended model's answers on the images of a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_curve
from torch import Tensor

from bench.contracts import Images, Streams
from bench.engine.plan import CellTask, Plan
from bench.engine.protect import Protected, fresh_answers
from bench.engine.run import run_cell
from bench.engine.setting import Setting
from bench.records.roc import Roc, Trace, save_roc
from bench.records.store import Store
from bench.records.warnings import NON_FINITE_ATTACKED, NON_FINITE_CLEAN

POINTS = 101
RESAMPLES = 200


def measure_roc(planned: Plan, setting: Setting, store: Store) -> int:
    """Measures and saves the ROC curves of all cells of a plan that have numbers; returns how many."""
    tasks = [task for task in planned.tasks if isinstance(task, CellTask)]
    done = 0
    for cell in [record.cell for record in planned.done] + [task.cell for task in tasks]:
        record = store.load(cell)
        if record and record.facts and not {NON_FINITE_CLEAN, NON_FINITE_ATTACKED} & record.facts.noted.keys():
            computed = run_cell(cell, replace(setting, seed=cell.seed), lambda share, doing: None)
            testbed, protected, attacked = computed.testbed, computed.protected, computed.attacked.adversarial
            rng, labels = testbed.streams.derive("judging"), testbed.labels.cpu().numpy()
            logits = [_ask(protected, images, testbed.images, rng) for images in (testbed.images, attacked)]
            clean, under_attack = (_of_classes(answers, labels, testbed.classes) for answers in logits)
            rejected = _of_rejection(*logits) if protected.model.rejects else None
            save_roc(store, Roc(cell, clean, under_attack, rejected, computed.outcome.fingerprints))
            done += 1
    return done


def _ask(protected: Protected, images: Images, originals: Images, rng: Streams) -> Float[Tensor, "draws n k"]:
    """The logits of a defended model that has seen no image yet, one set for each draw of a random defense."""
    seen = torch.cat([images, originals], dim=1) if protected.defense.sees_originals else images
    return fresh_answers(protected.unused(), seen, rng).double().cpu()


def _of_classes(logits: Float[Tensor, "draws n k"], labels: Int[np.ndarray, "n"], classes: int) -> Trace:
    """The correct class against all others, pooled over the classes; rejection plays no part."""
    scores = logits[:, :, :classes].softmax(-1).mean(0).numpy()
    return trace(np.arange(classes) == labels[:, None], scores)


def _of_rejection(clean: Float[Tensor, "draws n k"], attacked: Float[Tensor, "draws n k"]) -> Trace:
    """Attacked against clean images, by the logit of rejection minus the largest other; rejected above zero."""
    margins = [(logits[:, :, -1] - logits[:, :, :-1].amax(-1)).mean(0) for logits in (clean, attacked)]
    scores = torch.stack(margins, 1).numpy()
    return trace(np.broadcast_to([False, True], scores.shape), scores)


def trace(positive: Bool[np.ndarray, "n m"], scores: Float[np.ndarray, "n m"]) -> Trace:
    """The ROC curve of pooled scores.

    Args:
        positive: which scores should be high, shape (images, scores of each).
        scores: of the same shape.

    Returns:
        The curve, thinned to points evenly spaced along it. The area is that of all points, and its interval comes from
        images drawn with replacement.
    """
    rates = np.stack(roc_curve(positive.ravel(), scores.ravel())[:2])
    length = np.concatenate([[0.0], np.abs(np.diff(rates)).sum(0).cumsum()])
    places = np.linspace(0, length[-1], min(POINTS, len(length)))
    false_positives, true_positives = (np.interp(places, length, rate).round(4).tolist() for rate in rates)
    draws = Streams.of(0, torch.arange(RESAMPLES)).derive("resampling").integers(len(scores), len(scores)).numpy()
    counts = [np.ones(len(scores), dtype=np.int64), *(np.bincount(draw, minlength=len(scores)) for draw in draws)]
    area, *areas = _areas(positive, scores, counts)
    low, high = np.quantile(areas, (0.025, 0.975))
    return Trace(
        auc=round(area, 4),
        low=round(float(low), 4),
        high=round(float(high), 4),
        false_positives=tuple(false_positives),
        true_positives=tuple(true_positives),
    )


def _areas(
    positive: Bool[np.ndarray, "n m"], scores: Float[np.ndarray, "n m"], counts: Sequence[Int[np.ndarray, "n"]]
) -> list[float]:
    """The area, each image counted as often as `counts` says: how often a positive beats a negative; ties are half."""
    order = np.argsort(-scores.ravel(), kind="stable")
    levels, right, image = scores.ravel()[order], positive.ravel()[order], order // scores.shape[1]
    starts = np.flatnonzero(np.diff(levels, prepend=np.inf))
    areas = []
    for count in counts:
        weight = count[image].astype(np.float64)
        wins, losses = (np.add.reduceat(weight * side, starts) for side in (right, ~right))
        areas.append(float(losses @ (wins.cumsum() - wins / 2) / (wins.sum() * losses.sum())))
    return areas
