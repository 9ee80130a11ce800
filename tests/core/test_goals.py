from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from bench.contracts import Goal
from bench.core.goals import NO_CLASS, predicted

LOGITS = torch.tensor([[3.0, 1.0, 0.5], [0.0, 2.0, 5.0], [1.0, 1.5, 1.25]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1])


def test_untargeted_losses_are_those_of_the_label() -> None:
    goal = Goal(LABELS)
    assert torch.equal(goal.reached(LOGITS), torch.tensor([False, True, False]))
    assert torch.allclose(goal.cross_entropy(LOGITS), -F.cross_entropy(LOGITS, LABELS, reduction="none"))
    assert torch.allclose(goal.margin(LOGITS), torch.tensor([2.0, -3.0, 0.25], dtype=torch.float64))


def test_targeted_losses_are_those_of_the_target() -> None:
    targets = torch.tensor([1, 2, 2])
    goal = Goal(LABELS, targets)
    assert torch.equal(goal.reached(LOGITS), torch.tensor([False, True, False]))
    assert torch.allclose(goal.cross_entropy(LOGITS), F.cross_entropy(LOGITS, targets, reduction="none"))
    assert torch.allclose(goal.margin(LOGITS), torch.tensor([2.0, -3.0, 0.25], dtype=torch.float64))


def test_the_margin_is_below_zero_exactly_where_the_goal_is_reached() -> None:
    logits = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(500) % 6
    for goal in (
        Goal(labels),
        Goal(labels, (labels + 1) % 6),
        Goal(labels % 5, None, True),
        Goal(labels % 5, (labels + 1) % 5, True),
    ):
        assert torch.equal(goal.margin(logits) < 0, goal.reached(logits))


def test_a_rejected_image_is_no_success_and_rejection_is_avoided_by_the_losses() -> None:
    goal = Goal(torch.tensor([0]), rejects=True)
    rejected = torch.tensor([[1.0, 2.0, 3.0]])
    assert not goal.reached(rejected)
    assert goal.margin(rejected) == 1
    assert torch.allclose(goal.cross_entropy(rejected), torch.log(1 - rejected.softmax(1)[:, 1]))
    assert goal.reached(torch.tensor([[1.0, 4.0, 3.0]]))


def test_losses_average_over_draws_and_every_draw_must_reach_the_goal() -> None:
    draws = torch.stack([LOGITS, LOGITS.flip(1)])
    goal = Goal(LABELS)
    assert torch.allclose(goal.margin(draws), (goal.margin(draws[0]) + goal.margin(draws[1])) / 2)
    assert torch.allclose(goal.cross_entropy(draws), (goal.cross_entropy(draws[0]) + goal.cross_entropy(draws[1])) / 2)
    assert torch.equal(goal.reached(draws), goal.reached(draws[0]) & goal.reached(draws[1]))


def test_eligible_images_are_those_with_something_to_gain() -> None:
    assert torch.equal(Goal(LABELS).eligible(LOGITS), torch.tensor([True, False, True]))
    targets = torch.tensor([0, 0, 1])
    assert torch.equal(Goal(LABELS, targets).eligible(LOGITS), torch.tensor([False, True, False]))


def test_what_one_draw_gets_right_is_worth_an_attack() -> None:
    never = LOGITS.scatter(1, LABELS[:, None], -1e3)
    assert torch.equal(Goal(LABELS).eligible(torch.stack([never, LOGITS])), Goal(LABELS).eligible(LOGITS))
    assert not Goal(LABELS).eligible(torch.stack([never, never])).any()


def test_rows_of_a_goal_are_the_goal_of_those_rows() -> None:
    goal = Goal(LABELS, torch.tensor([1, 2, 2]), True)[torch.tensor([2, 0])]
    assert goal.labels.tolist() == [1, 0]
    assert goal.targets is not None
    assert goal.targets.tolist() == [2, 1]
    assert goal.rejects


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_no_class_and_reach_every_goal(value: float) -> None:
    logits = torch.tensor([[1.0, value, 0.0], [0.0, 1.0, 0.0]])
    assert predicted(logits).tolist() == [NO_CLASS, 1]
    labels = torch.tensor([1, 1])
    for goal in (Goal(labels), Goal(labels, torch.tensor([2, 2])), Goal(labels, rejects=True)):
        assert goal.reached(logits).tolist() == [True, False]
        assert goal.eligible(logits).tolist() == [False, True]
