"""Sparse-RS: random search over pixels, and over a patch and its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.contracts import Classifier, Goal, InputError, Model, Patch, Streams
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmoothClassifier, images_of, model_of, streams

ATTACKS = ("sparse-rs:pixels=4,queries=60", "sparse-rs-patch:area=0.2,queries=60")


def attacked(text: str, classifier: Classifier, images: Tensor, goal: Goal, seed: int = 0) -> tuple[Tensor, Model]:
    model = model_of(classifier, len(images))
    return make_attack(text)(model, images, goal, streams(len(images), seed)), model


def smooth(count: int = 8) -> tuple[SmoothClassifier, Tensor, Goal]:
    images = images_of(count, 3, 7, 6)
    classifier = SmoothClassifier(126, 4)
    return classifier, images, Goal(classifier(images, streams(count)).argmax(1))


class Held(Classifier):
    """Class 0 always wins, by more or less: no search ends early."""

    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.inner = SmoothClassifier(126, 4)

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        return self.inner(images, rng) + torch.tensor([50.0, 0, 0, 0])


@pytest.mark.parametrize("text", ATTACKS)
def test_the_budget_is_kept_with_corner_colours_alone(text: str) -> None:
    images = images_of(8, 3, 7, 6)
    adversarial, model = attacked(text, Held(), images, Goal(torch.zeros(8, dtype=torch.int64)))
    assert make_attack(text).allows(images, adversarial).all()
    values = adversarial[adversarial != images]
    assert ((values == 0) | (values == 1)).all()
    assert (model.forwards == 60).all()
    assert (model.facts["unconverged"] == 1).all()


def test_exactly_so_many_pixels_change() -> None:
    images = images_of(8, 3, 7, 6)
    adversarial, _ = attacked(ATTACKS[0], Held(), images, Goal(torch.zeros(8, dtype=torch.int64)))
    assert ((adversarial != images).any(1).flatten(1).sum(1) == 4).all()


def test_the_patch_is_one_whole_square_inside_the_image() -> None:
    images = images_of(60, 3, 7, 6)
    adversarial, _ = attacked(ATTACKS[1], Held(), images, Goal(torch.zeros(60, dtype=torch.int64)))
    changed = (adversarial != images).any(1)
    assert Patch(0.2).pixels(7, 6) == 8
    assert (changed.flatten(1).sum(1) == 4).all()
    assert (changed.any(2).sum(1) == 2).all()
    assert (changed.any(1).sum(1) == 2).all()
    assert changed.any(0).all()  # every place is reached by one of the images, the last row and column too


@pytest.mark.parametrize("text", ATTACKS)
def test_the_batch_changes_no_bit_and_the_seed_decides_all(text: str) -> None:
    classifier, images, goal = smooth()
    attack, whole = make_attack(text), attacked(text, classifier, images, goal)[0]
    parts = [
        attack(Model(classifier, streams(8, 99)[part]), images[part], goal[part], streams(8)[part])
        for part in (slice(0, 3), slice(3, 8))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(whole, attacked(text, classifier, images, goal)[0])
    assert not torch.equal(whole, attacked(text, classifier, images, goal, seed=1)[0])


@pytest.mark.parametrize("text", ATTACKS)
@pytest.mark.parametrize("targeted", [False, True])
def test_more_queries_are_never_weaker(text: str, targeted: bool) -> None:
    """The best that was ever asked about is what is returned."""
    images, zeros = images_of(8, 3, 7, 6), torch.zeros(8, dtype=torch.int64)
    goal = Goal(zeros, zeros + 1) if targeted else Goal(zeros)
    losses: list[Tensor] = []

    class Watched(Held):
        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            logits = super().forward(images, rng)
            losses.append((goal.cross_entropy if targeted else goal.margin)(logits))
            return logits

    adversarial, _ = attacked(text, Watched(), images, goal)
    asked = torch.stack(losses[1:])
    final = (goal.cross_entropy if targeted else goal.margin)(Held()(adversarial, streams(8)))
    assert torch.equal(final, asked.min(0).values)
    assert (final < asked[0]).all()


@pytest.mark.parametrize("text", ATTACKS)
def test_ineligible_images_cost_nothing_and_stay_as_they_are(text: str) -> None:
    classifier, images, goal = smooth()
    labels = goal.labels.clone()
    labels[::2] = (labels[::2] + 1) % 4
    before = images.clone()
    adversarial, model = attacked(text, classifier, images, Goal(labels))
    assert torch.equal(images, before)
    assert torch.equal(adversarial[::2], images[::2])
    assert not model.forwards[::2].any()
    assert (model.forwards[1::2] > 0).all()


def test_the_pixels_that_matter_are_found() -> None:
    """Three grey pixels decide; all three must be white."""
    images = images_of(4, 1, 5, 5)
    weights = torch.zeros(2, 25, dtype=torch.float64)
    weights[1, [0, 14, 24]] = 1
    classifier = LinearClassifier(weights, torch.tensor([2.9, 0]).double())
    goal = Goal(torch.zeros(4, dtype=torch.int64))
    adversarial, model = attacked("sparse-rs:pixels=3,queries=1500", classifier, images, goal)
    assert goal.reached(classifier(adversarial, streams(4))).all()
    assert (model.forwards < 1500).all()
    assert (adversarial != images).flatten(1)[:, [0, 14, 24]].all()


@pytest.mark.parametrize("corner", [(0, 0), (0, 4), (4, 4), (1, 2)])
def test_the_place_that_matters_is_found(corner: tuple[int, int]) -> None:
    """A white square of 2×2 is wanted at one place of a 6×6 image."""
    images = images_of(2, 1, 6, 6)
    weights = torch.zeros(2, 1, 6, 6, dtype=torch.float64)
    weights[1, :, corner[0] : corner[0] + 2, corner[1] : corner[1] + 2] = 1
    classifier = LinearClassifier(weights.flatten(1), torch.tensor([3.9, 0]).double())
    goal = Goal(torch.zeros(2, dtype=torch.int64))
    adversarial, _ = attacked("sparse-rs-patch:area=0.12,queries=800", classifier, images, goal)
    assert goal.reached(classifier(adversarial, streams(2))).all()


@pytest.mark.parametrize("text", ATTACKS)
def test_targeted_success_is_the_target_and_nothing_else(text: str) -> None:
    classifier, images, goal = smooth(24)
    targets = (goal.labels + 1) % 4
    adversarial, model = attacked(text.replace("60", "4"), classifier, images, Goal(goal.labels, targets))
    hit = classifier(adversarial, streams(24)).argmax(1) == targets
    assert 0 < hit.sum() < 24
    assert torch.equal(hit, model.facts["unconverged"] == 0)


@pytest.mark.parametrize("text", ATTACKS)
def test_luck_with_a_random_model_is_no_success(text: str) -> None:
    class Coin(Classifier):
        num_classes, random = 2, True

        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            win = (rng.uniform() < 0.03).to(images.dtype)
            return torch.stack([torch.full_like(win, 0.5), win], 1)

    images = images_of(60, 3, 7, 6)
    _, model = attacked(text, Coin(), images, Goal(torch.zeros(60, dtype=torch.int64)))
    eligible = model.forwards > 0
    assert (model.facts["unconverged"][eligible] == 0).double().mean() < 0.3  # one answer in 60 would be 84 %
    assert (model.forwards[eligible] <= 120).all()


def test_patches_need_not_be_on_square_images_and_grey_ones_will_do() -> None:
    for shape in ((1, 4, 9), (3, 9, 4), (1, 1, 1)):
        images = images_of(3, *shape)
        classifier = SmoothClassifier(images[0].numel(), 3)
        goal = Goal(classifier(images, streams(3)).argmax(1))
        adversarial, _ = attacked("sparse-rs-patch:area=0.25,queries=9", classifier, images, goal)
        assert Patch(0.25).allows(images, adversarial).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sparse-rs:pixels=0", "1 or more"),
        ("sparse-rs:queries=0", "1 or more"),
        ("sparse-rs:change=0", "share"),
        ("sparse-rs:change=1.5", "share"),
        ("sparse-rs-patch:area=0", "share"),
        ("sparse-rs-patch:area=1.1", "share"),
        ("sparse-rs-patch:queries=0", "1 or more"),
        ("sparse-rs-patch:location_period=1", "2 or more"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_attack(text)


def test_what_does_not_fit_into_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="Lower pixels"):
        make_attack("sparse-rs:pixels=16").check((3, 4, 4), 2)
    with pytest.raises(InputError, match="smaller area"):
        make_attack("sparse-rs-patch:area=0.9").check((3, 4, 9), 2)
    make_attack("sparse-rs:pixels=15").check((3, 4, 4), 2)
