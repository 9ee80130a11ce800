"""The pixel attacks: differential evolution, the exhaustive search, and their control."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import differential_evolution
from torch import Tensor

from bench.contracts import Attack, Classifier, Goal, InputError, Model, Pixels, Streams
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmoothClassifier, images_of, model_of, streams

ATTACKS = (
    "pixel:population=12,generations=3",
    "pixel:pixels=3,population=12,generations=3",
    "corner-pixel:pixels=2",
    "random-pixel:pixels=3",
)


def attacked(text: str, classifier: Classifier, images: Tensor, goal: Goal, seed: int = 0) -> tuple[Tensor, Model]:
    model = model_of(classifier, len(images))
    return make_attack(text)(model, images, goal, streams(len(images), seed)), model


def predicted(classifier: Classifier, images: Tensor) -> Tensor:
    return classifier(images, streams(len(images))).argmax(1)


def smooth(count: int = 8, *shape: int) -> tuple[SmoothClassifier, Tensor, Goal]:
    images = images_of(count, *(shape or (3, 5, 6)))
    classifier = SmoothClassifier(images[0].numel(), 4)
    return classifier, images, Goal(predicted(classifier, images))


def planted(place: int, size: int = 6, bias: float = 1.0) -> LinearClassifier:
    """Class 1 wins where the channels of one pixel sum up to more than 2.6, and never else."""
    weights = torch.zeros(2, 3, size * size, dtype=torch.float64)
    weights[1, :, place] = 1
    return LinearClassifier(weights.flatten(1), torch.tensor([2.6, 0.0], dtype=torch.float64) * bias)


@pytest.mark.parametrize("text", ATTACKS)
def test_at_most_so_many_pixels_change_and_only_to_colours_of_the_8_bit_grid(text: str) -> None:
    classifier, images, goal = smooth()
    attack = make_attack(text)
    adversarial, _ = attacked(text, classifier, images, goal)
    assert attack.allows(images, adversarial).all()
    values = adversarial[adversarial != images] * 255
    assert len(values) > 0
    assert (values - values.round()).abs().max() < 1e-9
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


@pytest.mark.parametrize("text", ATTACKS)
def test_the_batch_changes_no_bit_and_the_seed_decides_all(text: str) -> None:
    classifier, images, goal = smooth()
    attack, whole = make_attack(text), attacked(text, classifier, images, goal)[0]
    assert torch.equal(whole, attacked(text, classifier, images, goal)[0])
    parts = [
        attack(Model(classifier, streams(8, 99)[part]), images[part], goal[part], streams(8)[part])
        for part in (slice(0, 3), slice(3, 8))
    ]
    assert torch.equal(whole, torch.cat(parts))
    if text != "corner-pixel:pixels=2":
        assert not torch.equal(whole, attacked(text, classifier, images, goal, seed=1)[0])


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
    assert not torch.equal(adversarial[1::2], images[1::2])


@pytest.mark.parametrize("text", ["pixel:population=60,generations=25", "corner-pixel"])
@pytest.mark.parametrize("place", [0, 5, 17, 30, 35])
def test_the_one_sensitive_pixel_is_found_at_every_place(text: str, place: int) -> None:
    images = images_of(2, 3, 6, 6)
    adversarial, model = attacked(text, planted(place), images, Goal(torch.zeros(2, dtype=torch.int64)))
    assert (predicted(planted(place), adversarial) == 1).all()
    assert not model.facts["unconverged"].any()
    changed = (adversarial != images).any(1).flatten(1)
    assert (changed.sum(1) == 1).all()
    assert changed[:, place].all()


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("bounds", ["clip", "reflect", "resample"])
def test_the_ends_of_the_colour_range_are_reachable(value: int, bounds: str) -> None:
    """Only the very end of the range reaches this goal."""
    weights = torch.zeros(2, 1, dtype=torch.float64)
    weights[1] = 1 if value else -1
    classifier = LinearClassifier(weights, torch.tensor([0.9999 if value else -0.0001, 0.0]).double())
    images = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    text = f"pixel:population=40,generations=40,bounds={bounds}"
    adversarial, _ = attacked(text, classifier, images, Goal(torch.tensor([0])))
    assert adversarial.item() * 255 == value


def test_queries_are_the_population_and_one_more_for_each_child_until_success() -> None:
    images = images_of(3, 3, 4, 4)
    never = LinearClassifier(torch.zeros(2, 48, dtype=torch.float64), torch.tensor([1.0, 0.0]).double())
    _, model = attacked("pixel:population=7,generations=5", never, images, Goal(torch.zeros(3, dtype=torch.int64)))
    assert model.forwards.tolist() == [7 * 6] * 3
    assert model.facts["unconverged"].tolist() == [1, 1, 1]
    _, model = attacked("pixel:population=7,generations=9", planted(3, 4, 0.3), images, Goal(torch.tensor([0, 0, 0])))
    assert (model.forwards <= 7 * 10).all()


def test_the_exhaustive_search_asks_once_about_each_candidate() -> None:
    images = images_of(2, 3, 5, 7)
    asked: list[Tensor] = []

    class Recorder(LinearClassifier):
        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            asked.append(images[:, :, :, :].clone())
            return super().forward(images, rng)

    classifier = Recorder(torch.zeros(2, 105, dtype=torch.float64), torch.tensor([1.0, 0.0]).double())
    _, model = attacked("corner-pixel", classifier, images, Goal(torch.zeros(2, dtype=torch.int64)))
    assert model.forwards.tolist() == [35 * 8] * 2
    rows = torch.cat(asked[1:]).flatten(1)
    assert len(rows.unique(dim=0)) == 2 * 35 * 8
    for limit, tries in (("share=0.25", 70), ("share=0.02", 6), ("most=70", 70), ("share=0.02,most=5", 5)):
        _, model = attacked(f"corner-pixel:{limit}", classifier, images, Goal(torch.zeros(2, dtype=torch.int64)))
        assert model.forwards.tolist() == [tries] * 2


def test_evolution_never_succeeds_where_the_list_of_all_candidates_has_no_success() -> None:
    """In grey with two colours that matter, the exhaustive search is the truth; margins are linear in the colour."""
    images = images_of(24, 1, 8, 8)
    weights = torch.randn(3, 64, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    classifier = LinearClassifier(weights, -0.5 * weights.sum(1))
    goal = Goal(predicted(classifier, images))
    _, listed = attacked("corner-pixel", classifier, images, goal)
    _, evolved = attacked("pixel:population=60,generations=40", classifier, images, goal)
    possible = listed.facts["unconverged"] == 0
    assert 0 < possible.sum() < 24
    assert torch.equal(evolved.facts["unconverged"] == 0, possible)


def test_the_exhaustive_search_finds_the_optimum_of_a_linear_model() -> None:
    images = images_of(4, 3, 5, 5)
    weights = torch.zeros(2, 75, dtype=torch.float64)
    weights[1] = torch.randn(75, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    classifier = LinearClassifier(weights, torch.tensor([1e3, 0.0]).double())
    adversarial, _ = attacked("corner-pixel:pixels=3", classifier, images, Goal(torch.zeros(4, dtype=torch.int64)))
    corner = (weights[1] > 0).double()
    gain = ((corner - images.flatten(1)) * weights[1]).reshape(4, 3, 25).sum(1)
    best = gain.topk(3, dim=1).values.sum(1)
    reached = ((adversarial - images).flatten(1) * weights[1]).sum(1)
    assert torch.allclose(reached, best)


def test_more_generations_and_more_pixels_are_never_weaker() -> None:
    """The best margin so far cannot rise: later generations go on from the earlier ones."""
    smooth_one, images, _ = smooth()

    class Held(Classifier):
        """Class 0 always wins, by more or less."""

        num_classes = 4

        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            return smooth_one(images, rng) + torch.tensor([30.0, 0, 0, 0])

    goal = Goal(torch.zeros(8, dtype=torch.int64))
    margins = []
    for generations in (0, 1, 3, 8):
        text = f"pixel:population=12,generations={generations}"
        adversarial, _ = attacked(text, Held(), images, goal)
        margins.append(goal.margin(Held()(adversarial, streams(8))))
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(margins))
    assert margins[-1].mean() < margins[0].mean() - 0.5
    one, _ = attacked("corner-pixel:pixels=1", Held(), images, goal)
    two, _ = attacked("corner-pixel:pixels=2", Held(), images, goal)
    assert (goal.margin(Held()(two, streams(8))) < goal.margin(Held()(one, streams(8)))).all()


def test_targeted_success_is_the_target_and_nothing_else() -> None:
    classifier, images, goal = smooth(16, 3, 4, 4)
    targets = (goal.labels + 1) % 4
    targeted = Goal(goal.labels, targets)
    for text in ("pixel:pixels=4,population=40,generations=10", "corner-pixel:pixels=4"):
        adversarial, model = attacked(text, classifier, images, targeted)
        hit = predicted(classifier, adversarial) == targets
        assert hit.sum() > 0
        assert torch.equal(hit, model.facts["unconverged"] == 0)


@pytest.mark.parametrize("preset", ["quick", "su2019", "hyperparticle", "apr"])
@pytest.mark.parametrize("targeted", [False, True])
def test_every_preset_keeps_its_budget(preset: str, targeted: bool) -> None:
    classifier, images, goal = smooth(2)
    goal = Goal(goal.labels, (goal.labels + 1) % 4) if targeted else goal
    text = f"pixel:{preset},pixels=2,population=8,generations=4"
    adversarial, _ = attacked(text, classifier, images, goal)
    assert Pixels(2).allows(images, adversarial).all()


def test_a_cluster_lies_in_one_window_of_three_by_three() -> None:
    classifier, images, goal = smooth(8, 3, 9, 9)
    text = "pixel:pixels=5,cluster=true,population=20,generations=2"
    adversarial, _ = attacked(text, classifier, images, goal)
    rows, columns = (adversarial != images).any(1).any(2), (adversarial != images).any(1).any(1)
    for marked in (rows, columns):
        assert all(int(one.nonzero().max() - one.nonzero().min()) < 3 for one in marked)


def test_a_costly_change_is_a_shorter_one() -> None:
    _, images, goal = smooth()
    lengths = []
    for weight in (0, 10):
        text = f"pixel:additive=true,population=20,generations=8,change_weight={weight}"
        never = LinearClassifier(torch.zeros(4, 90, dtype=torch.float64), torch.tensor([1.0, 0, 0, 0]).double())
        adversarial, _ = attacked(text, never, images, Goal(torch.zeros_like(goal.labels)))
        lengths.append((adversarial - images).flatten(1).norm(dim=1).mean())
    assert lengths[1] < 0.5 * lengths[0]


def test_confident_goes_on_until_the_label_is_improbable() -> None:
    images = images_of(3, 1, 3, 3)
    weights = torch.zeros(2, 9, dtype=torch.float64)
    weights[1, 4] = 40
    classifier = LinearClassifier(weights, torch.tensor([34.0, 0.0]).double())
    goal = Goal(torch.zeros(3, dtype=torch.int64))
    text = "pixel:population=20,generations=40,strategy=rand1,loss=probability,stop="
    adversarial, _ = attacked(text + "confident", classifier, images, goal)
    assert (classifier(adversarial, streams(3)).softmax(1)[:, 0] < 0.05).all()


class Coin(Classifier):
    """Class 1 by chance where the first pixel is bright, else class 0 for sure."""

    num_classes, random = 2, True

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        win = (rng.uniform() < self.chance) & (images[:, 0, 0, 0] > 0.9)
        return torch.stack([torch.full_like(images[:, 0, 0, 0], 0.5), win.to(images.dtype)], 1)


@pytest.mark.parametrize("text", ["pixel:population=60,generations=10", "corner-pixel"])
def test_a_random_model_must_be_fooled_twice(text: str) -> None:
    images = images_of(40, 3, 2, 2)
    _, model = attacked(text, Coin(0.02), images, Goal(torch.zeros(40, dtype=torch.int64)))
    lucky = (model.facts["unconverged"] == 0).double().mean()
    assert lucky < 0.5  # a single lucky answer among the hundreds asked for would nearly always be found
    _, model = attacked(text, Coin(1.0), images, Goal(torch.zeros(40, dtype=torch.int64)))
    assert (model.facts["unconverged"] == 0).all()


def test_the_control_changes_exactly_so_many_pixels_anywhere_and_asks_nothing() -> None:
    classifier, images, goal = smooth(64)
    adversarial, model = attacked("random-pixel:pixels=4", classifier, images, goal)
    changed = (adversarial != images).any(1)
    assert (changed.flatten(1).sum(1) == 4).all()
    assert changed.any(0).all()
    assert not model.forwards.any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pixel:pixels=0", "1 or more"),
        ("pixel:population=3", "4 or more"),
        ("pixel:generations=-1", "0 or more"),
        ("pixel:weight=1:0.5", "low:high"),
        ("pixel:crossover=1.5", "chance"),
        ("pixel:change_weight=-1", "0 or more"),
        ("pixel:stop=confident", "loss=probability"),
        ("pixel:start=sobol", "one of"),
        ("corner-pixel:share=0", "in (0, 1]"),
        ("corner-pixel:pixels=0", "1 or more"),
        ("corner-pixel:most=0", "1 or more"),
        ("random-pixel:pixels=0", "1 or more"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(").replace("]", r"\]")):
        make_attack(text)


def test_more_random_pixels_than_the_image_has_are_refused() -> None:
    with pytest.raises(InputError, match="16 pixels"):
        make_attack("random-pixel:pixels=17").check((3, 4, 4), 2)


def evolved_margins(classifier: Classifier, images: Tensor, goal: Goal, population: int, generations: int) -> Tensor:
    text = f"pixel:population={population},generations={generations},bounds=resample"
    adversarial, _ = attacked(text, classifier, images, goal)
    return goal.margin(classifier(adversarial, streams(len(images))))


def test_evolution_does_as_well_as_that_of_scipy_with_as_many_queries() -> None:
    """On the same margin, with the same population and generations; neither stops early."""
    images = images_of(6, 3, 8, 8)
    classifier = SmoothClassifier(192, 4, hidden=24)
    labels = predicted(classifier, images)
    goal = Goal(labels)
    population, generations = 30, 12

    def margin(genes: np.ndarray[Any, Any], index: int) -> float:
        image = images[index].clone()
        image[:, int(genes[0]), int(genes[1])] = torch.from_numpy(genes[2:].astype(int) / 255.0)
        return float(goal[index : index + 1].margin(classifier(image[None], streams(1))))

    theirs = []
    for index in range(len(images)):
        found = differential_evolution(
            margin, [(0, 7.999)] * 2 + [(0, 255.999)] * 3, args=(index,), strategy="best1bin", popsize=population // 5,
            maxiter=generations, recombination=1, tol=0, atol=-1, polish=False, rng=index,
        )  # fmt: skip
        assert found.nfev == population * (generations + 1)
        theirs.append(found.fun)
    # Ours stops at a success; only images without one can be compared by their margins.
    ours = evolved_margins(classifier, images, goal, population, generations)
    scipy_margins = torch.tensor(theirs)
    assert (ours < 0).sum() >= (scipy_margins < 0).sum()
    open_ones = (ours >= 0) & (scipy_margins >= 0)
    assert ours[open_ones].sum() <= scipy_margins[open_ones].sum() + 0.02 * len(images)


def test_success_is_at_least_that_of_art_with_as_many_queries() -> None:
    """ART's pixel attack, population and generations equal; it runs through SciPy's evolution, image by image."""
    estimators = importlib.import_module("art.estimators.classification")
    evasion = importlib.import_module("art.attacks.evasion")
    images = images_of(8, 3, 8, 8, dtype=torch.float32)
    classifier = SmoothClassifier(192, 4, hidden=24, dtype=torch.float32)
    goal = Goal(predicted(classifier, images))

    class Plain(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return classifier(images / 255, streams(len(images))).softmax(1)

    wrapped = estimators.PyTorchClassifier(
        Plain(), torch.nn.CrossEntropyLoss(), (3, 8, 8), 4, clip_values=(0, 255), device_type="cpu"
    )
    attack = evasion.PixelAttack(wrapped, th=1, es=1, max_iter=3)
    theirs = torch.from_numpy(attack.generate((images * 255).numpy(), goal.labels.numpy()))
    their_success = (classifier(theirs / 255, streams(8)).argmax(1) != goal.labels).sum()
    adversarial, _ = attacked("pixel:population=400,generations=3", classifier, images, goal)
    assert (predicted(classifier, adversarial) != goal.labels).sum() >= their_success


def test_attacks_are_plugins_with_a_text_form() -> None:
    attack: Attack = make_attack("pixel:hyperparticle,pixels=5")
    assert str(attack.budget) == "5 pixels"
    assert attack.access == "scores"
