"""What must hold of any honest attack on a bare model: on real digits (8×8), and a small network trained on them."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import pytest
import torch

from bench.contracts import Goal, Model, UniversalAttack
from bench.core.checkpoints import Checkpoint
from bench.engine.craft import craft
from bench.engine.setting import Setting
from bench.engine.testbed import testbed_of
from bench.plugins.registry import make_attack

from ..toys import streams
from .digit_net import ATTACKED, classifier, digits

NOISE = 3
"""How many more images may survive the stronger of two attacks by chance."""


def right(text: str) -> int:
    """How many images are still classified correctly after the attack with its quick preset."""
    return int(kept(text, "quick").sum())


@cache
def kept(text: str, effort: str) -> torch.Tensor:
    """Which images are still classified correctly."""
    images, labels = digits()
    rng, goal, attack = streams(ATTACKED), Goal(labels[:ATTACKED]), make_attack(text, effort)
    if isinstance(attack, UniversalAttack):
        part = slice(ATTACKED, ATTACKED + 200)
        learning = streams(200, seed=5)
        artifact = attack.learn(Model(classifier(), learning), images[part], Goal(labels[part]), learning)
        attack = attack.given(artifact)
    adversarial = attack(Model(classifier(), rng), images[:ATTACKED], goal, rng.derive("attack"))
    assert attack.allows(images[:ATTACKED], adversarial).all()
    return classifier()(adversarial, rng).argmax(1) == goal.labels


def clean() -> int:
    images, labels = digits()
    return int((classifier()(images[:ATTACKED], streams(ATTACKED)).argmax(1) == labels[:ATTACKED]).sum())


@pytest.mark.parametrize(
    ("attack", "values"),
    [
        ("fgsm:eps", ("0.05", "0.1", "0.2")),
        ("pgd:eps", ("0.05", "0.1", "0.2")),
        ("pgd:norm=l2,eps", ("0.3", "0.6", "1.2")),
        ("square:queries=150,eps", ("0.05", "0.1", "0.2")),
        ("lavan:area", ("0.03", "0.07", "0.15")),
        ("patch:area", ("0.07", "0.15", "0.3")),
        ("tnt:area", ("0.07", "0.15", "0.3")),
        ("sparse-rs-patch:queries=150,area", ("0.02", "0.07", "0.15")),
        ("sparse-rs:queries=150,pixels", ("1", "2", "4")),
        ("greedyfool:pixels", ("1", "2", "4")),
        ("pixel:pixels", ("1", "3", "6")),
        ("corner-pixel:pixels", ("1", "3", "6")),
    ],
)
def test_a_larger_budget_is_not_weaker_and_a_much_larger_one_is_stronger(attack: str, values: tuple[str, ...]) -> None:
    left = [clean(), *(right(f"{attack}={value}") for value in values)]
    assert all(more <= less + NOISE for less, more in pairwise(left)), left
    assert left[-1] < left[1] - NOISE, left


@pytest.mark.parametrize(
    ("attack", "values"),
    [
        ("ifgsm:eps=0.1,steps", (1, 4, 16)),
        ("pgd:eps=0.1,steps", (1, 4, 16)),
        ("pgd:eps=0.1,steps=2,restarts", (1, 4, 16)),
        ("square:eps=0.15,queries", (1, 30, 150)),
        ("lavan:area=0.15,rounds=1,places=1,steps", (1, 4, 30)),
        ("lavan:area=0.07,rounds", (1, 2, 4)),
        ("patch:area=0.3,steps", (1, 20)),
        ("tnt:area=0.3,candidates=8,steps", (0, 40)),
        ("sparse-rs:pixels=2,queries", (1, 30, 150)),
        ("sparse-rs-patch:area=0.07,queries", (1, 30, 150)),
        ("pixel:pixels=3,generations", (0, 4, 16)),
        ("corner-pixel:share", (0.05, 0.2, 1)),
        ("greedyfool:pixels=2,steps=4,exchanges", (0, 4, 40)),
    ],
)
def test_more_steps_are_not_weaker_and_many_are_stronger_than_few(attack: str, values: tuple[float, ...]) -> None:
    left = [right(f"{attack}={value}") for value in values]
    assert all(more <= less + NOISE for less, more in pairwise(left)), left
    assert left[-1] < left[0], left


@pytest.mark.parametrize("attack", ["lavan:area=0.05"])
def test_whatever_less_effort_fools_more_effort_fools_too(attack: str) -> None:
    quick, standard = kept(attack, "quick"), kept(attack, "standard")
    assert not (standard & ~quick).any()


@pytest.mark.parametrize(
    ("white", "black"),
    [
        ("pgd:eps=0.1", "square:eps=0.1"),
        ("pgd:norm=l2,eps=0.6", "square:norm=l2,eps=0.6"),
        ("greedyfool:pixels=1", "corner-pixel:pixels=1,share=1"),
        ("greedyfool:pixels=2", "sparse-rs:queries=150,pixels=2"),
        ("greedyfool:pixels=3", "pixel:pixels=3"),
        ("lavan:area=0.07", "sparse-rs-patch:queries=150,area=0.07"),
    ],
)
def test_an_attack_with_gradients_is_not_weaker_than_one_with_scores(white: str, black: str) -> None:
    assert right(white) <= right(black) + NOISE < clean()


@pytest.mark.parametrize("text", ["lavan:area=1", "pgd:eps=1", "pgd:norm=l2,eps=8", "greedyfool:pixels=none"])
def test_an_attack_without_bounds_leaves_nothing(text: str) -> None:
    assert right(text) == 0


def test_a_learned_patch_over_the_whole_image_leaves_at_most_one_class() -> None:
    _, labels = digits()
    assert right("patch:area=1,rotation=0,scale=1:1") <= int(labels[:ATTACKED].bincount().max())


@pytest.mark.parametrize(
    ("attack", "control"),
    [
        ("lavan:area=0.15", "occlusion:area=0.15,rotation=0,scale=1:1"),
        ("lavan:area=0.15", "random-patch:area=0.15,rotation=0,scale=1:1"),
        ("sparse-rs:queries=150,pixels=4", "random-pixel:pixels=4"),
        ("pixel:pixels=3", "random-pixel:pixels=3"),
        ("greedyfool:pixels=4", "random-pixel:pixels=4"),
    ],
)
def test_an_attack_is_far_stronger_than_its_control(attack: str, control: str) -> None:
    assert clean() - right(control) < (clean() - right(attack)) / 2


def test_a_learned_patch_is_far_stronger_than_its_controls_on_photos() -> None:
    """Not on digits, where a patch over a third of the image hides the digit."""
    testbed = testbed_of(Setting("photos", "photos-cnn", images=40))
    others = testbed.bare, testbed, testbed.rows, 1, lambda share, doing: None, Checkpoint(None)
    left = [
        int(craft(make_attack(text), *others).right.sum())
        for text in ("patch:restarts=1,steps=30,batch_size=16", "occlusion", "random-patch")
    ]
    assert left[0] < 24
    assert min(left[1:]) >= 36
