"""LaVAN: changes its region alone, follows its formula, stops image by image, searches the place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.contracts import Attack, Classifier, Goal, InputError
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmoothClassifier, images_of, model_of, streams

ONE = "rounds=1,places=1,decay=false"
FIXED = f"area=0.25,location=fixed,at=2:1,{ONE}"  # 3×3 of 6×6 pixels
INSIDE = (slice(None), slice(None), slice(2, 5), slice(1, 4))


def smooth_setting(targeted: bool, count: int = 8) -> tuple[SmoothClassifier, Tensor, Goal]:
    net, images = SmoothClassifier(108, 4), images_of(count, 3, 6, 6)
    labels = net(images, streams(count)).argmax(1)
    return net, images, Goal(labels, (labels + 1) % 4 if targeted else None)


def linear_setting(count: int = 4) -> tuple[LinearClassifier, Tensor, Goal]:
    """Three classes; all images are of class 0, and class 2 is wanted."""
    net = LinearClassifier(images_of(3, 108, seed=3) - 0.5, torch.tensor([9.0, 0.0, 0.0]).double())
    labels = torch.zeros(count, dtype=torch.int64)
    return net, images_of(count, 3, 6, 6), Goal(labels, labels + 2)


def attacked(text: str, net: Classifier, images: Tensor, goal: Goal, seed: int = 0) -> Tensor:
    attack: Attack = make_attack(text)
    return attack(model_of(net, len(images)), images, goal, streams(len(images), seed))


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("parameters", ["", ":location=border,steps=9", ":update=adam,steps=9", ":shape=disc,rounds=3"])
def test_only_the_region_changes_and_stays_in_range(parameters: str, targeted: bool) -> None:
    net, images, goal = smooth_setting(targeted)
    attack = make_attack("lavan" + parameters)
    adversarial = attacked("lavan" + parameters, net, images, goal)
    assert attack.allows(images, adversarial).all()
    assert ((adversarial != images).any(1).sum((1, 2)) == attack.budget.pixels(6, 6)).all()  # type: ignore[attr-defined]
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


def test_a_gradient_step_is_the_closed_form_on_a_linear_model() -> None:
    net, images, goal = linear_setting()
    parameters = f"{FIXED},update=gradient,momentum=0,step_size=0.01"
    first, second = (attacked(f"lavan:{parameters},steps={steps}", net, images, goal) for steps in (1, 2))
    expected = 0.01 * (net.weights[2] - net.weights[0]).reshape(3, 6, 6).expand_as(images)[INSIDE]
    change = second[INSIDE] - first[INSIDE]
    free = (second[INSIDE] > 0) & (second[INSIDE] < 1)
    torch.testing.assert_close(change[free], expected[free])
    assert free.double().mean() > 0.9


def test_the_loss_falls_to_the_optimum_of_a_linear_model() -> None:
    net, images, goal = linear_setting()
    adversarial = attacked(f"lavan:{FIXED},steps=40,confidence=1", net, images, goal)
    wanted = (net.weights[2] - net.weights[0]).reshape(3, 6, 6).expand_as(images)
    assert torch.equal(adversarial[INSIDE], (wanted > 0).double()[INSIDE])


def test_source_and_target_in_logits_are_the_difference_of_two_cross_entropies() -> None:
    net, images, goal = linear_setting()
    logits = net(images, streams(4)).requires_grad_()
    assert goal.targets is not None
    entropies = goal.cross_entropy(logits) + Goal(goal.labels).cross_entropy(logits)  # CE(target) − CE(source)
    (through_entropies,) = torch.autograd.grad(entropies.sum(), logits)
    torch.testing.assert_close(through_entropies, torch.tensor([[1.0, 0.0, -1.0]]).double().expand(4, 3))


def test_what_lies_under_the_region_does_not_matter() -> None:
    net, images, goal = smooth_setting(targeted=False)
    other = images.clone()
    other[INSIDE] = images.flip(0)[INSIDE]
    same = torch.nonzero(net(other, streams(8)).argmax(1) == goal.labels)[:, 0]
    first, second = (attacked(f"lavan:{FIXED},steps=5", net, one, goal) for one in (images, other))
    assert len(same) > 2
    assert torch.equal(first[same], second[same])


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    "parameters", [ONE, "rounds=3", "update=adam", "loss=cross-entropy,momentum=0", "loss=source-target"]
)
def test_an_image_is_attacked_the_same_in_any_batch(parameters: str, targeted: bool) -> None:
    net, images, goal = smooth_setting(targeted)
    attack = make_attack(f"lavan:area=0.06,steps=5,{parameters}")
    model, rng = model_of(net, 8), streams(8)
    whole = attack(model, images, goal, rng)
    parts = [
        attack(model_of(net, 8)[part], images[part], goal[part], streams(8)[part])
        for part in (slice(0, 3), slice(3, 8))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert len(model.forwards.unique()) > 1, "no image stopped early: the test shows nothing"


def test_an_image_that_is_done_is_not_asked_about_again() -> None:
    net, images, goal = smooth_setting(targeted=False)
    attack, model = make_attack(f"lavan:area=1,steps=50,confidence=0.5,{ONE}"), model_of(net, 8)
    adversarial = attack(model, images, goal, streams(8))
    assert goal.reached(net(adversarial, streams(8))).all()
    assert (model.forwards < 51).all()
    assert torch.equal(model.forwards, model.backwards)
    assert (model.facts["unconverged"] == 0).all()


def test_more_steps_at_one_place_never_give_a_higher_margin() -> None:
    net, images, goal = smooth_setting(targeted=True)
    few, many = (
        goal.margin(net(attacked(f"lavan:area=0.25,steps={steps},confidence=1,{ONE}", net, images, goal), streams(8)))
        for steps in (3, 30)
    )
    assert (many <= few).all()


def test_more_rounds_help_images_that_are_left_and_cost_the_others_nothing() -> None:
    net, images, goal = smooth_setting(targeted=True)
    models, margins = [], []
    for rounds in (1, 2, 4):
        models.append(model_of(net, 8))
        adversarial = make_attack(f"lavan:area=0.06,steps=2,rounds={rounds}")(models[-1], images, goal, streams(8))
        margins.append(goal.margin(net(adversarial, streams(8))))
    assert (margins[1] <= margins[0]).all()
    assert (margins[2] <= margins[1]).all()
    assert (margins[2] < margins[0]).any()
    done = margins[0] < 0
    assert done.any()
    assert not done.all()
    assert torch.equal(models[0].forwards[done], models[2].forwards[done])
    assert (models[0].forwards[~done] < models[2].forwards[~done]).all()


def test_the_starts_are_halved_and_the_queries_are_those_of_the_formula() -> None:
    net, images, goal = linear_setting()
    far = LinearClassifier(net.weights, torch.tensor([99.0, 0.0, 0.0]).double())
    model = model_of(far, 4)
    make_attack("lavan:area=0.25,rounds=3,steps=5,places=7")(model, images, goal, streams(4))
    halved = 1 + (2 + 1)  # the gradients of starts that are given up where they stand
    gradients = 5 * (1 + (2 + 1) + (4 + 2 + 1)) + halved
    assert (model.backwards == gradients).all()
    assert (model.forwards == gradients + 7 * (1 + 2 + 4) + 3).all()  # tries, and one look at the end of each round


def test_the_place_that_matters_is_found() -> None:
    weights = torch.zeros(2, 1, 12, 12, dtype=torch.float64)
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    weights[1, 0] = torch.exp(-((rows - 9) ** 2 + (columns - 8) ** 2).double() / 20)
    net = LinearClassifier(weights.flatten(1), torch.tensor([40.0, 0.0]).double())
    images, goal = torch.full((30, 1, 12, 12), 0.5).double(), Goal(torch.zeros(30, dtype=torch.int64))
    found = attacked("lavan:area=0.0625", net, images, goal) != images
    rows, columns = (found.any(axis)[:, 0].double().argmax(1) for axis in (3, 2))
    near = ((rows - 8).abs() <= 1) & ((columns - 7).abs() <= 1)
    assert near.double().mean() > 0.9


def test_a_run_is_repeated_by_its_seed() -> None:
    net, images, goal = smooth_setting(targeted=True)
    first, again, other = (attacked("lavan:area=0.25,steps=3,rounds=2", net, images, goal, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_images_of_the_target_class_are_left_alone() -> None:
    net, images, goal = linear_setting()
    mine = Goal(goal.labels, torch.tensor([0, 2, 2, 0]))
    adversarial = attacked("lavan:area=0.25,steps=2", net, images, mine)
    assert torch.equal(adversarial[[0, 3]], images[[0, 3]])
    assert not torch.equal(adversarial[[1, 2]], images[[1, 2]])


def test_smoothness_gives_smoother_noise() -> None:
    net, images, goal = linear_setting()
    rough, smooth = (
        attacked(f"lavan:{FIXED},steps=40,step_size=0.05,confidence=1,smoothness={weight}", net, images, goal)[
            INSIDE
        ].std()
        for weight in (0, 1000)
    )
    assert smooth < 0.5 * rough


@pytest.mark.parametrize("parameters", ["confidence=0", "confidence=1.1", "rounds=0", "places=0", "steps=0", "area=2"])
def test_parameters_out_of_range_are_refused(parameters: str) -> None:
    with pytest.raises(InputError):
        make_attack(f"lavan:{parameters}")


def test_the_protocol_of_the_defense_paper_is_a_preset() -> None:
    attack = make_attack("lavan:paper")
    assert attack.budget.pixels(299, 299) == pytest.approx(42**2, rel=0.02)  # type: ignore[attr-defined]
    assert (attack.steps, attack.confidence, attack.location) == (1000, 0.99, "border")  # type: ignore[attr-defined]
    assert (attack.rounds, attack.places, attack.loss) == (1, 1, "source-target")  # type: ignore[attr-defined]
