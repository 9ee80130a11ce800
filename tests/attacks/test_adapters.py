"""Attacks of other libraries: held to our budgets, charged to the right images, as strong as in their own home."""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.contracts import Attack, Classifier, Goal, InputError, MissingExtraError, Model, NotApplicableError, Streams
from bench.plugins import registry
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmallConvNet, SmoothClassifier, images_of, model_of, plugin_module, streams

borrowed: Any = plugin_module("attacks._borrowed")
NEEDS_EXTRA = {"apgd", "square", "autoattack"}
NEWTON = "art:attack=NewtonFool,settings=max_iter=2"
CHEAP = [
    "cw:steps=20,searches=2,first_weight=10",
    "deepfool:steps=10,candidates=3",
    "deepfool:norm=linf,eps=0.1,steps=10,candidates=3",
    "foolbox:eps=0.1,settings=steps=5",
    "foolbox:salt-and-pepper,eps=40,settings=steps=20",
    "apgd:eps=0.1,steps=8",
    "apgd:norm=l2,eps=1,steps=8,loss=dlr,restarts=2",
    "square:eps=0.1,queries=40",
    "square:norm=l2,eps=1,queries=40",
    "autoattack:eps=0.02,steps=4,queries=20",
    "autoattack:rand,eps=0.02,steps=2",
    "jsma:pixels=12",
    "art:eps=0.1,settings=eps=0.1;eps_step=0.03;max_iter=4",
]


def made(text: str) -> Attack:
    if text.partition(":")[0] in NEEDS_EXTRA:
        pytest.importorskip("pyautoattack")
    attack = make_attack(text)
    attack.check((3, 16, 16), 10)
    return attack


def run(text: str, classifier: Classifier, images: Tensor, goal: Goal) -> tuple[Tensor, Model]:
    model = model_of(classifier, len(images))
    return made(text)(model, images, goal, streams(len(images))), model


def scene(count: int = 8) -> tuple[Classifier, Tensor, Tensor]:
    classifier = SmoothClassifier(768, 10, dtype=torch.float32)
    images = images_of(count, 3, 16, 16, dtype=torch.float32)
    return classifier, images, classifier(images, streams(count)).argmax(1)


@pytest.mark.parametrize("text", CHEAP)
def test_a_budget_is_kept_and_reported_successes_are_true(text: str) -> None:
    classifier, images, labels = scene()
    before = images.clone()
    adversarial, model = run(text, classifier, images, Goal(labels))
    assert torch.equal(images, before)
    assert made(text).allows(images, adversarial).all()
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1
    reached = classifier(adversarial, streams(8)).argmax(1) != labels
    assert torch.equal(model.facts["unconverged"] == 0, reached)
    assert reached.any()


@pytest.mark.parametrize("text", CHEAP)
def test_images_that_are_not_eligible_are_untouched_and_cost_nothing(text: str) -> None:
    classifier, images, labels = scene(5)
    labels[2] = (labels[2] + 1) % 10
    adversarial, model = run(text, classifier, images, Goal(labels))
    assert torch.equal(adversarial[2], images[2])
    assert model.forwards[2] == model.backwards[2] == 0
    assert (model.forwards[[0, 1, 3, 4]] > 0).all()


@pytest.mark.parametrize("text", CHEAP)
def test_a_run_can_be_repeated_and_leaves_no_trace_in_global_random_numbers_or_weights(text: str) -> None:
    classifier, images = SmallConvNet(), images_of(4, 3, 16, 16, dtype=torch.float32)
    labels = classifier(images, streams(4)).argmax(1)
    weights = [weight.requires_grad_() for weight in classifier.parameters()]
    state = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002  # what is tested
    first, _ = run(text, classifier, images, Goal(labels))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert str(np.random.get_state()) == state[1]  # noqa: NPY002  # the same
    assert all(weight.grad is None and weight.requires_grad for weight in weights)
    np.random.seed(5)  # noqa: NPY002  # must make no difference
    torch.rand(3)
    second, _ = run(text, classifier, images, Goal(labels))
    assert torch.equal(first, second)


class Counting(Classifier):
    """Counts the rows that it is asked for."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__()
        self.inner, self.num_classes, self.rows = inner, inner.num_classes, 0

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        self.rows += len(images)
        logits: Tensor = self.inner(images, rng)
        return logits


@pytest.mark.parametrize("text", CHEAP)
def test_every_row_that_a_library_asks_for_is_counted(text: str) -> None:
    classifier, images, labels = scene()
    counting = Counting(classifier)
    _, model = run(text, counting, images, Goal(labels))
    assert int(model.forwards.sum()) == counting.rows - len(images)  # eligibility is not charged


def test_rows_of_an_incomplete_call_are_charged_to_the_images_that_they_came_from() -> None:
    classifier, images, labels = scene()
    model = model_of(classifier, 8)
    network = borrowed.AsModule(model, images, Goal(labels))
    some = torch.tensor([1, 4, 4, 7])
    network(images[some] + 0.05 * streams(4).normal(3, 16, 16))
    assert model.forwards.tolist() == [0, 1, 0, 0, 2, 0, 0, 1]


class Rejecting(Classifier):
    """Rejects what its inner classifier is not sure enough of."""

    rejects = True

    def __init__(self, inner: Classifier, threshold: float) -> None:
        super().__init__()
        self.inner, self.num_classes, self.threshold = inner, inner.num_classes, threshold

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        logits: Tensor = self.inner(images, rng)
        return torch.cat([logits, torch.full_like(logits[:, :1], self.threshold)], 1)


@pytest.mark.parametrize("text", ["apgd:eps=0.3,steps=10", "cw:eps=9,steps=40,first_weight=10", "square:eps=0.3"])
def test_a_rejected_image_is_no_success_for_a_borrowed_attack(text: str) -> None:
    classifier, images, labels = scene()
    logits = classifier(images, streams(8))
    detector = Rejecting(classifier, float(logits.amax(1).min()) - 1e-3)
    adversarial, model = run(text, detector, images, Goal(labels))
    predicted = detector(adversarial, streams(8)).argmax(1)
    success = (predicted != labels) & (predicted != 10)
    assert torch.equal(model.facts["unconverged"] == 0, success)
    assert success.any()


class Noisy(Classifier):
    """A little noise on the images, from the stream of each row."""

    random = True

    def __init__(self, inner: Classifier) -> None:
        super().__init__()
        self.inner, self.num_classes = inner, inner.num_classes

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        logits: Tensor = self.inner(images + 0.01 * rng.normal(*images.shape[1:]), rng)
        return logits


@pytest.mark.parametrize("text", ["apgd:eps=0.1,steps=6", "square:eps=0.1,queries=10", "cw:steps=8,searches=2"])
def test_each_draw_of_a_random_model_is_counted(text: str) -> None:
    classifier, images, labels = scene(4)
    counting = Counting(Noisy(classifier))
    counting.random = True
    model = Model(counting, streams(4, seed=99), draws=3)
    made(text)(model, images, Goal(labels), streams(4))
    assert int(model.forwards.sum()) == counting.rows - 3 * len(images)  # eligibility is not charged
    assert (model.forwards % 3 == 0).all()


@pytest.mark.parametrize("text", ["cw:eps=9,steps=60,first_weight=10", "apgd:eps=0.2,steps=20", "square:eps=0.3"])
def test_a_targeted_goal_means_that_class(text: str) -> None:
    classifier, images, labels = scene()
    targets = (labels + 1) % 10
    adversarial, model = run(text, classifier, images, Goal(labels, targets))
    reached = classifier(adversarial, streams(8)).argmax(1) == targets
    assert torch.equal(model.facts["unconverged"] == 0, reached)
    assert reached.float().mean() >= 0.5


@pytest.mark.parametrize("text", ["deepfool", "foolbox:attack=FGSM", "autoattack", "apgd:loss=dlr", NEWTON])
def test_a_targeted_goal_that_a_library_cannot_follow_is_refused(text: str) -> None:
    classifier, images, labels = scene(3)
    with pytest.raises(NotApplicableError, match="untargeted"):
        run(text, classifier, images, Goal(labels, (labels + 1) % 10))


def test_a_minimal_change_that_is_too_long_does_not_count() -> None:
    classifier, images, labels = scene()
    adversarial, model = run("cw:eps=0.0001,steps=20,searches=2", classifier, images, Goal(labels))
    assert (model.facts["unconverged"] == 1).all()
    assert torch.equal(adversarial, images)


@pytest.mark.parametrize("norm", ["linf", "l2", "pixels"])
def test_whatever_a_library_returns_ends_within_the_budget(norm: str) -> None:
    images = images_of(6, 3, 8, 8, dtype=torch.float32)
    wild = images + 3 * streams(6).normal(3, 8, 8)
    wild[0] = torch.nan
    budget = borrowed.budget_of(norm, 3)
    kept = borrowed.within(budget, images, wild)
    assert budget.allows(images, kept).all()
    assert torch.equal(kept[0], images[0])


def test_the_random_numbers_of_python_are_seeded_and_put_back() -> None:
    inside, after = [], []
    for _ in range(2):
        with borrowed.isolated(streams(3)):
            inside.append(random.random())
        after.append(random.random())
    assert inside[0] == inside[1]
    assert after[0] != after[1]  # had the seed stayed, they would be equal


def test_deepfool_finds_the_distance_to_the_boundary_of_a_linear_model() -> None:
    weights = streams(1, seed=3).normal(2, 48)[0]
    images = images_of(10, 3, 4, 4, dtype=torch.float32)
    classifier = LinearClassifier(weights, -(weights @ images.flatten(1).mean(0)))
    logits = classifier(images, streams(10))
    adversarial, _ = run("deepfool:eps=9,candidates=2", classifier, images, Goal(logits.argmax(1)))
    distance = (logits[:, 0] - logits[:, 1]).abs() / (weights[0] - weights[1]).norm()
    inside = ((adversarial > 0) & (adversarial < 1)).flatten(1).all(1)
    length = (adversarial - images).flatten(1).norm(dim=1)
    assert inside.any()
    assert torch.allclose(length[inside], 1.02 * distance[inside], rtol=1e-2, atol=1e-3)


def test_autoattack_breaks_the_images_that_the_library_breaks() -> None:
    library = pytest.importorskip("pyautoattack")
    classifier, images, labels = scene(24)
    network = borrowed.AsModule(model_of(classifier, 24), images, Goal(labels))
    theirs = library.AutoAttack(network, eps=0.005, seed=1, version="standard")
    theirs.verbose = False
    theirs.apgd.__init__(network, n_iter=10, eps=0.005, seed=1, device="cpu")
    theirs.apgd_targeted.__init__(network, n_iter=10, eps=0.005, seed=1, device="cpu")
    theirs.fab.n_iter, theirs.square.n_queries = 10, 100
    with borrowed.isolated(streams(24)):
        expected, _ = theirs.run_standard_evaluation(images, labels)
    ours, _ = run("autoattack:eps=0.005,steps=10,queries=100", classifier, images, Goal(labels))
    broken = [classifier(images, streams(24)).argmax(1) != labels for images in (expected, ours)]
    assert 0 < broken[0].sum() < 24
    assert (broken[0] != broken[1]).sum() <= 1  # the random starts differ


@pytest.mark.parametrize(
    "text",
    [
        "cw:eps=0", "cw:steps=0", "cw:confidence=-1", "deepfool:candidates=1", "foolbox:attack=Nothing",
        "foolbox:settings=colour=3", "foolbox:norm=pixels,eps=0.5", "apgd:restarts=0", "apgd:eps=-1",
        "square:first_share=0", "autoattack:queries=0", "jsma:pixels=1", "jsma:theta=0", "art:attack=Nothing",
        "art:settings=colour=3",
    ],
)  # fmt: skip
def test_wrong_parameters_are_errors_before_any_work(text: str) -> None:
    with pytest.raises(InputError, match="Expected"):
        make_attack(text)


def test_what_does_not_fit_the_images_or_classes_is_reported_before_any_work() -> None:
    with pytest.raises(InputError, match="pixels"):
        make_attack("jsma:pixels=300").check((3, 16, 16), 10)
    pytest.importorskip("pyautoattack")
    for text in ("autoattack", "apgd:loss=dlr"):
        with pytest.raises(NotApplicableError, match="4 classes"):
            make_attack(text).check((3, 16, 16), 3)


@pytest.mark.parametrize("name", sorted(NEEDS_EXTRA))
def test_a_missing_package_names_the_extra_that_brings_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_module("attacks.autoattack"), "find_spec", lambda package: None)
    with pytest.raises(MissingExtraError, match=r"defense-bench\[autoattack\]"):
        make_attack(name).check((3, 16, 16), 10)


@pytest.mark.parametrize("name", ["cw", "deepfool", "foolbox", "apgd", "square", "autoattack", "jsma", "art"])
def test_every_preset_can_be_made_and_every_parameter_is_documented(name: str) -> None:
    plugin = registry.load_plugin("attack", name)
    for preset in plugin.presets:
        make_attack(f"{name}:{preset}")
    for field in fields(plugin):
        assert f"{field.name}:" in (plugin.__doc__ or "")
