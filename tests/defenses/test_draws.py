"""An adaptive attacker of a random defense averages enough of its answers: more would hardly break more images."""

import torch

from bench.contracts import Classifier, Goal
from bench.engine.protect import fresh_answers
from bench.engine.run import DRAWS
from bench.plugins.registry import make_attack, make_defense

from ..toys import SmoothClassifier, images_of, model_of, streams

COUNT = 24


def left(view: Classifier, defended: Classifier, images: torch.Tensor, goal: Goal, draws: int) -> float:
    """The accuracy that PGD through `view` leaves, over fresh draws."""
    attack = make_attack("pgd:eps=0.06,steps=10")
    adversarial = attack(model_of(view, COUNT, draws), images, goal, streams(COUNT))
    logits = fresh_answers(defended, adversarial, streams(COUNT).derive("judge"))
    return float((logits.argmax(-1) == goal.labels).float().mean())


def test_more_draws_than_those_of_quick_gain_little_and_one_is_too_few() -> None:
    model, images = SmoothClassifier(12 * 12, 4), images_of(COUNT, 1, 12, 12)
    defense = make_defense("tvm-guo:steps=30")
    defended, view = defense.protect(model, {}), defense.attacker_views(model, {})["jacobian"]
    goal = Goal(fresh_answers(defended, images, streams(COUNT)).mean(0).argmax(1))
    alone, quick, twice = (
        left(view, defended, images, goal, draws) for draws in (1, DRAWS["quick"], 2 * DRAWS["quick"])
    )
    assert alone > quick + 0.05
    assert twice > quick - 0.05
