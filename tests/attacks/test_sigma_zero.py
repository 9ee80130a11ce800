"""σ-zero: the fewest pixels on a linear model, the budget, the batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.contracts import Classifier, Goal, InputError, Model, Pixels
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmoothClassifier, images_of, model_of, streams


def attacked(text: str, classifier: Classifier, images: Tensor, goal: Goal) -> tuple[Tensor, Model]:
    model = model_of(classifier, len(images))
    return make_attack(text)(model, images, goal, streams(len(images))), model


def smooth(number: int = 8) -> tuple[SmoothClassifier, Tensor, Goal]:
    images, classifier = images_of(number, 3, 7, 6), SmoothClassifier(126, 4)
    return classifier, images, Goal(classifier(images, streams(number)).argmax(1))


def changed(images: Tensor, adversarial: Tensor) -> Tensor:
    return (images != adversarial).any(1).flatten(1)


@pytest.mark.parametrize("need", [2.5, 4.5, 7.0, 9.0, 14.0])
def test_on_a_linear_model_it_finds_the_fewest_pixels(need: float) -> None:
    """Grey images of three channels; pixel i moves the margin by gains[i] where all its channels go to white."""
    gains = torch.tensor([1.0, 4.0, 2.0, 0.5, 3.0, 5.0, 1.5, 2.5, 0.2], dtype=torch.float64)
    weights = torch.stack([torch.zeros(27).double(), (gains / 2.4).repeat(3)])
    images = torch.full((1, 3, 3, 3), 0.2, dtype=torch.float64)
    net = LinearClassifier(weights, torch.tensor([0.2 * float(weights[1].sum()) + need, 0.0]).double())
    best = int((gains.sort(descending=True).values.cumsum(0) <= need).sum()) + 1
    goal = Goal(torch.zeros(1, dtype=torch.int64))
    adversarial, model = attacked("sigma-zero:pixels=none", net, images, goal)
    assert goal.reached(net(adversarial, streams(1))).all()
    assert changed(images, adversarial).sum() == model.facts["pixels"].item() == best
    assert model.backwards.item() == 300


def test_counting_values_finds_the_fewest_values() -> None:
    weights = torch.zeros(2, 27).double()
    weights[1] = torch.arange(27.0).double()  # the largest three move the margin by 0.5 · (26 + 25 + 24) at the most
    images = torch.full((1, 3, 3, 3), 0.5, dtype=torch.float64)
    net = LinearClassifier(weights, torch.tensor([0.5 * float(weights[1].sum()) + 30, 0.0]).double())
    adversarial, _ = attacked("sigma-zero:paper", net, images, Goal(torch.zeros(1, dtype=torch.int64)))
    assert (adversarial != images).sum() == 3


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("pixels", [1, 3, 9])
def test_the_cap_is_kept_and_failures_stay_as_they_were(pixels: int, targeted: bool) -> None:
    classifier, images, goal = smooth(16)
    goal = Goal(goal.labels, (goal.labels + 1) % 4 if targeted else None)
    adversarial, model = attacked(f"sigma-zero:pixels={pixels}", classifier, images, goal)
    success = goal.reached(classifier(adversarial, streams(16)))
    assert Pixels(pixels).allows(images, adversarial).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert success.any()
    assert torch.equal(model.facts["unconverged"] == 0, success)
    assert torch.equal(model.facts["pixels"][success].long(), changed(images, adversarial).sum(1)[success])
    assert torch.equal(adversarial[~success], images[~success])
    assert (model.backwards[success] < 300).all()


def test_the_fewest_pixels_are_kept_where_there_is_no_cap() -> None:
    classifier, images, goal = smooth(16)
    few = attacked("sigma-zero:pixels=none,steps=20", classifier, images, goal)[1].facts["pixels"]
    fewer = attacked("sigma-zero:pixels=none", classifier, images, goal)[1].facts["pixels"]
    assert fewer.isfinite().all()
    assert fewer.mean() < few.nan_to_num(42).mean()


def test_changed_values_lie_on_the_8_bit_grid() -> None:
    classifier, _, _ = smooth()
    images = (images_of(8, 3, 7, 6) * 255).round() / 255
    goal = Goal(classifier(images, streams(8)).argmax(1))
    adversarial, _ = attacked("sigma-zero:pixels=none", classifier, images, goal)
    assert ((adversarial * 255).round() / 255 == adversarial).all()


@pytest.mark.parametrize("text", ["sigma-zero:pixels=none,steps=30", "sigma-zero:pixels=2,steps=60"])
def test_the_batch_changes_no_bit(text: str) -> None:
    classifier, images, goal = smooth()
    attack, whole = make_attack(text), attacked(text, classifier, images, goal)[0]
    parts = [
        attack(Model(classifier, streams(8, 99)[part]), images[part], goal[part], streams(8)[part])
        for part in (slice(0, 3), slice(3, 8))
    ]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(
    "parameters", ["pixels=0", "steps=0", "step_size=0", "sigma=0", "threshold=2", "threshold_step=-1", "count=hill"]
)
def test_parameters_out_of_range_are_refused(parameters: str) -> None:
    with pytest.raises(InputError):
        make_attack(f"sigma-zero:{parameters}")
