"""FGSM, I-FGSM and PGD: equal to their references to the bit, right on linear models, within their budgets."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.contracts import Attack, Classifier, Goal, InputError
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmallConvNet, SmoothClassifier, images_of, model_of, plugin_module, streams

EPS = 8 / 255


class Logits(nn.Module):
    """A bench classifier as other libraries expect it."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(images, streams(len(images)))
        return logits


def setting(targeted: bool, count: int = 12) -> tuple[Classifier, Tensor, Goal]:
    """A net, images, and a goal that every image is eligible for."""
    net, images = SmallConvNet(), images_of(count, 3, 16, 16, dtype=torch.float32)
    images[:, :, :4], images[:, :, 4:8] = 0, 1  # clipping matters too
    labels = net(images, streams(count)).argmax(1)
    return net, images, Goal(labels, (labels + 3) % 10 if targeted else None)


def attacked(attack: Attack, net: Classifier, images: Tensor, goal: Goal, seed: int = 0) -> Tensor:
    return attack(model_of(net, len(images)), images, goal, streams(len(images), seed))


def by_foolbox(attack: Any, net: Classifier, images: Tensor, goal: Goal) -> Tensor:
    foolbox = plugin_module("attacks.foolbox_attacks")._foolbox()  # imports it without its warning
    model = foolbox.PyTorchModel(Logits(net).eval(), bounds=(0, 1), device="cpu")
    criteria = foolbox.criteria
    criterion = criteria.Misclassification(goal.labels)
    if goal.targets is not None:
        criterion = criteria.TargetedMisclassification(goal.targets)
    result: Tensor = attack(foolbox.attacks)(model, images, criterion, epsilons=EPS)[1]
    return result


def by_art(name: str, net: Classifier, images: Tensor, goal: Goal, **parameters: Any) -> Tensor:
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    estimator = PyTorchClassifier(
        Logits(net), nn.CrossEntropyLoss(), tuple(images.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
    )
    wanted = goal.labels if goal.targets is None else goal.targets
    attack = getattr(evasion, name)(estimator, eps=EPS, targeted=goal.targets is not None, **parameters)
    return torch.from_numpy(attack.generate(images.numpy(), wanted.numpy()))


@pytest.mark.parametrize("targeted", [False, True])
def test_fgsm_equals_foolbox_and_art_to_the_bit(targeted: bool) -> None:
    net, images, goal = setting(targeted)
    ours = attacked(make_attack("fgsm"), net, images, goal)

    def reference(attacks: Any) -> Any:  # foolbox's FGSM refuses targets, its one-step BIM does not
        return attacks.LinfBasicIterativeAttack(steps=1, rel_stepsize=1) if targeted else attacks.FGSM()

    assert torch.equal(ours, by_foolbox(reference, net, images, goal))
    assert torch.equal(ours, by_art("FastGradientMethod", net, images, goal))


@pytest.mark.parametrize("targeted", [False, True])
def test_ifgsm_equals_foolbox_and_art_to_the_bit(targeted: bool) -> None:
    net, images, goal = setting(targeted)
    ours = attacked(make_attack("ifgsm:steps=7,step_size=2/255"), net, images, goal)
    theirs = by_foolbox(lambda all: all.LinfBasicIterativeAttack(steps=7, abs_stepsize=2 / 255), net, images, goal)
    assert torch.equal(ours, theirs)
    arts = by_art("BasicIterativeMethod", net, images, goal, eps_step=2 / 255, max_iter=7, verbose=False)
    assert torch.equal(ours, arts)


def test_ifgsm_with_one_step_of_eps_is_fgsm() -> None:
    net, images, goal = setting(targeted=False)
    single = attacked(make_attack("ifgsm:steps=1,step_size=8/255"), net, images, goal)
    assert torch.equal(single, attacked(make_attack("fgsm"), net, images, goal))


@pytest.mark.parametrize("text", ["fgsm:eps=0", "ifgsm:eps=0", "pgd:eps=0", "pgd:eps=0,norm=l2"])
def test_no_budget_means_no_change(text: str) -> None:
    net, images, goal = setting(targeted=False)
    assert torch.equal(attacked(make_attack(text), net, images, goal), images)


ATTACKS = ["fgsm", "ifgsm:steps=4", "pgd:steps=4,restarts=2", "pgd:l2,steps=4,restarts=2,loss=margin"]


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("text", ATTACKS)
def test_the_change_keeps_the_budget_and_moves_the_images(text: str, targeted: bool) -> None:
    net, images, goal = setting(targeted)
    attack, before = make_attack(text), images.clone()
    adversarial = attacked(attack, net, images, goal)
    assert attack.allows(images, adversarial).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    assert (adversarial != images).flatten(1).any(1).all()
    assert torch.equal(images, before)
    assert all(weight.grad is None for weight in net.parameters())


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("text", ATTACKS)
def test_an_image_is_attacked_the_same_in_any_batch(text: str, targeted: bool) -> None:
    net, images, attack = SmoothClassifier(75, 4), images_of(8, 3, 5, 5), make_attack(text)
    labels = net(images, streams(8)).argmax(1)
    goal, rng = Goal(labels, (labels + 1) % 4 if targeted else None), streams(8)
    whole = attack(model_of(net, 8), images, goal, rng)
    parts = [
        attack(model_of(net, 8)[part], images[part], goal[part], streams(8)[part])
        for part in (slice(0, 3), slice(3, 8))
    ]
    assert torch.equal(whole, torch.cat(parts))


def two_classes() -> tuple[Tensor, Classifier, Tensor, Goal]:
    """A linear model that tells class 0 from class 1 by `difference` · image, and images of class 0."""
    difference = images_of(1, 48, seed=5)[0] - 0.5
    difference[:6] = 0
    net = LinearClassifier(torch.stack([difference, torch.zeros(48, dtype=torch.float64)]), torch.tensor([5.0, 0.0]))
    return difference.reshape(3, 4, 4), net, images_of(4, 3, 4, 4), Goal(torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("text", ["fgsm:eps=0.1", "ifgsm:eps=0.1,loss=margin", "pgd:eps=0.1,steps=30"])
def test_linf_attacks_find_the_optimum_of_a_linear_model(text: str) -> None:
    difference, net, images, goal = two_classes()
    optimum = images - 0.1 * difference.sign()
    adversarial = attacked(make_attack(text), net, images, goal)
    moved = (difference != 0).expand_as(images)
    torch.testing.assert_close(adversarial[moved], optimum[moved])
    if not text.startswith("pgd"):  # without a gradient a value stays where it is
        assert torch.equal(adversarial[~moved], images[~moved])


def test_l2_pgd_finds_the_optimum_of_a_linear_model() -> None:
    difference, net, images, goal = two_classes()
    adversarial = attacked(make_attack("pgd:norm=l2,eps=0.3,steps=100,step_size=0.1"), net, images, goal)
    torch.testing.assert_close(adversarial, images - 0.3 * difference / difference.norm(), atol=1e-3, rtol=0)


def test_more_steps_never_give_a_higher_loss_on_a_linear_model() -> None:
    _, net, images, goal = two_classes()
    margins = []
    for steps in (1, 2, 4, 8):
        adversarial = attacked(make_attack(f"ifgsm:eps=0.1,step_size=0.0125,steps={steps}"), net, images, goal)
        margins.append(goal.margin(net(adversarial, streams(4))))
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(margins))


def test_the_margin_moves_images_where_cross_entropy_saturates() -> None:
    net, images, _ = setting(targeted=False)
    net.net[-1].weight.mul_(1e9)  # type: ignore[union-attr, index, operator]  # the toy's last layer
    goal = Goal(net(images, streams(len(images))).argmax(1))
    stuck, model = make_attack("fgsm"), model_of(net, len(images))
    assert torch.equal(stuck(model, images, goal, streams(len(images))), images)
    assert (model.zero_gradients == 1).all()
    assert (attacked(make_attack("fgsm:loss=margin"), net, images, goal) != images).flatten(1).any(1).all()


def test_restarts_and_more_steps_never_weaken_pgd() -> None:
    net, images, goal = setting(targeted=True)

    def margins(text: str) -> Tensor:
        return goal.margin(net(attacked(make_attack(text), net, images, goal), streams(len(images))))

    weak = margins("pgd:steps=3,step_size=1/255,eps=2/255")
    tolerance = 1e-5  # rounding depends on the batch
    assert (margins("pgd:steps=3,step_size=1/255,eps=2/255,restarts=3").clamp(min=0) <= weak + tolerance).all()


def test_pgd_starts_at_random_places_of_the_whole_ball() -> None:
    steps = plugin_module("attacks._steps")
    images = torch.full((2000, 3, 2, 2), 0.5)
    box = steps.LinfBall(0.1).start(images, streams(2000)) - images
    assert box.abs().max() <= 0.1 + 1e-7
    assert box.mean().abs() < 0.002
    torch.testing.assert_close(box.std(), torch.tensor(0.2 / 12**0.5), atol=0.001, rtol=0)
    length = (steps.L2Ball(0.1).start(images, streams(2000)) - images).flatten(1).norm(dim=1)
    assert length.max() <= 0.1 + 1e-6
    assert ((length / 0.1) ** 12).mean() == pytest.approx(0.5, abs=0.03)  # uniform in the volume of 12 dimensions


def test_pgd_counts_what_it_asks_and_stops_when_an_image_is_done() -> None:
    net, images, goal = setting(targeted=False)
    model = model_of(net, len(images))
    make_attack("pgd:eps=0.5,steps=5,restarts=4")(model, images, goal, streams(len(images)))
    assert (model.forwards == 6).all()
    assert (model.backwards == 5).all()
    assert (model.facts["unconverged"] == 0).all()


@pytest.mark.parametrize(
    "text",
    ["fgsm:eps=-1", "fgsm:eps=2", "ifgsm:steps=0", "ifgsm:step_size=0", "pgd:restarts=0", "pgd:steps=0", "pgd:norm=l1"],
)
def test_parameters_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        make_attack(text)
