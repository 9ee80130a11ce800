from __future__ import annotations

import pytest
import torch

from bench.budgets import number
from bench.contracts import L2, Budget, Linf, Patch, Pixels

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


def test_budgets_print_as_the_field_writes_them() -> None:
    assert [str(one) for one in (Linf(8 / 255), L2(0.5), Pixels(1), Pixels(5, 0.1), Patch(0.0625))] == [
        "L∞ ≤ 8/255",
        "L2 ≤ 0.5",
        "1 pixel",
        "5 pixels, L∞ ≤ 0.1",
        "patch ≤ 6.25 %",
    ]
    assert number(0.3) == "0.3"
