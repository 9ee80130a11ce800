from __future__ import annotations

import itertools

import pytest
import torch

from bench.contracts import L2, Budget, Goal, Linf, Patch, Pixels
from bench.core.budgets import number
from bench.plugins.registry import make_attack

from ..toys import SmoothClassifier, model_of, streams

IMAGES = torch.full((1, 3, 20, 20), 0.5)


def changed(rows: slice | int, columns: slice | int, by: float = 0.25) -> torch.Tensor:
    adversarial = IMAGES.clone()
    adversarial[:, :, rows, columns] += by
    return adversarial


@pytest.mark.parametrize(
    ("budget", "adversarial", "allowed"),
    [
        (Linf(0.25), changed(slice(None), slice(None)), True),
        (Linf(0.249), changed(3, 3), False),
        (L2(0.4331), changed(3, 3), True),
        (L2(0.43), changed(3, 3), False),
        (Pixels(2), changed(3, slice(0, 2)), True),
        (Pixels(1), changed(3, slice(0, 2)), False),
        (Pixels(2, eps=0.2), changed(3, slice(0, 2)), False),
        (Patch(0.04), changed(slice(16, 20), slice(16, 20)), True),
        (Patch(0.04), changed(slice(15, 20), slice(16, 20)), False),
        (Patch(0.04), changed(0, slice(0, 16)), False),
        (Patch(0.04), changed(0, slice(0, 7)), True),
        (Patch(0.04, turned=False), changed(0, slice(0, 7)), False),
        (Patch(0.04, turned=False), changed(slice(16, 20), slice(16, 20)), True),
        (Patch(0.04, turned=False), changed(slice(15, 20), slice(18, 20)), False),
        (Patch(0.0425, turned=False), changed(slice(15, 20), slice(17, 20)), True),
        (Patch(0.0001), changed(3, 3), True),
    ],
)
def test_a_budget_allows_what_it_says_and_no_more(budget: Budget, adversarial: torch.Tensor, allowed: bool) -> None:
    assert bool(budget.allows(IMAGES, adversarial)[0]) is allowed
    assert bool(budget.allows(IMAGES, IMAGES.clone())[0])


def test_the_eps_ball_is_closed_in_the_images_own_type() -> None:
    images = torch.rand(50, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert Linf(8 / 255).allows(images, images + 8 / 255).all()
    assert not Linf(8 / 255).allows(images, images + 8.01 / 255).any()


def test_two_far_pixels_are_no_patch() -> None:
    adversarial = IMAGES.clone()
    adversarial[:, :, 0, 0] = adversarial[:, :, 19, 19] = 1
    assert Pixels(2).allows(IMAGES, adversarial)
    assert not Patch(0.04).allows(IMAGES, adversarial)


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("area", [0.0001, 0.005, 0.04, 0.2, 0.7])
def test_a_patch_is_allowed_as_far_as_its_box_goes_and_no_further(area: float, turned: bool) -> None:
    budget, images = Patch(area, turned), torch.zeros(1, 1, 20, 26)
    pixels, box = budget.pixels(20, 26), budget.box(20, 26)
    for height, width in itertools.product(range(1, 21), range(1, 27)):
        adversarial = images.clone()
        adversarial[:, :, 20 - height, 26 - width] = adversarial[:, :, 19, 25] = 1
        inside = height <= box[0] and width <= box[1] and adversarial.sum() <= pixels
        assert bool(budget.allows(images, adversarial)) is bool(inside)


def test_budgets_print_as_the_field_writes_them() -> None:
    assert [
        str(one) for one in (Linf(8 / 255), L2(0.5), Pixels(1), Pixels(5, 0.1), Patch(0.0625), Patch(0.06, False))
    ] == [
        "L∞ ≤ 8/255",
        "L2 ≤ 0.5",
        "1 pixel",
        "5 pixels, L∞ ≤ 0.1",
        "patch ≤ 6.25 %",
        "upright patch ≤ 6 %",
    ]
    assert number(0.3) == "0.3"


@pytest.mark.parametrize("scale", ["0.5:1", "1:1"])
def test_a_square_that_is_not_turned_keeps_the_upright_budget_whatever_its_area(scale: str) -> None:
    model = model_of(SmoothClassifier(144, 2), 20)
    images, goal = torch.zeros(20, 1, 12, 12), Goal(torch.zeros(20, dtype=torch.int64))
    for pixels in range(1, 145):
        attack = make_attack(f"occlusion:rotation=0,grey=1,scale={scale},area={pixels / 144}")
        adversarial = attack.perturb(model, images, goal, streams(20))
        assert str(attack.budget).startswith("upright patch")
        assert attack.allows(images, adversarial).all()


def test_turned_squares_and_discs_have_the_larger_budget() -> None:
    for text in ("occlusion:rotation=0,shape=disc", "occlusion:rotation=10"):
        assert str(make_attack(text).budget) == "patch ≤ 10 %"
