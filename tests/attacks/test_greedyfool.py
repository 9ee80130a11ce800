"""GreedyFool: few pixels by gradient, and fewer again."""

from __future__ import annotations

import importlib
import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bench.contracts import Classifier, Goal, InputError, Linf, Model, Pixels, Streams
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmoothClassifier, images_of, model_of, streams


def attacked(text: str, classifier: Classifier, images: Tensor, goal: Goal) -> tuple[Tensor, Model]:
    model = model_of(classifier, len(images))
    return make_attack(text)(model, images, goal, streams(len(images))), model


def count(images: Tensor, adversarial: Tensor) -> Tensor:
    return (images != adversarial).any(1).flatten(1).sum(1)


def smooth(number: int = 8, hidden: int = 16) -> tuple[SmoothClassifier, Tensor, Goal]:
    images = images_of(number, 3, 7, 6)
    classifier = SmoothClassifier(126, 4, hidden)
    return classifier, images, Goal(classifier(images, streams(number)).argmax(1))


def linear(gains: Tensor, need: float) -> tuple[LinearClassifier, Tensor, Goal]:
    """Grey images of 1/255 · 51; pixel i moves the margin by gains[i] where it goes from there to white."""
    weights = torch.zeros(2, len(gains), dtype=torch.float64)
    weights[1] = gains / 0.8
    images = torch.full((1, 1, 3, len(gains) // 3), 0.2, dtype=torch.float64)
    bias = torch.tensor([0.2 * float(weights[1].sum()) + need, 0.0], dtype=torch.float64)
    return LinearClassifier(weights, bias), images, Goal(torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("eps", [1.0, 0.5, 40 / 255])
@pytest.mark.parametrize("options", ["", ",distortion=sigma", ",blocks=false", ",eight_bit=false", ",pool=paper"])
def test_the_budget_is_kept_and_the_record_tells_the_pixels(eps: float, options: str) -> None:
    classifier, images, goal = smooth()
    for pixels in ("none", "3"):
        adversarial, model = attacked(f"greedyfool:pixels={pixels},eps={eps}{options}", classifier, images, goal)
        assert Linf(eps).allows(images, adversarial).all()
        assert adversarial.min() >= 0
        assert adversarial.max() <= 1
        success = goal.reached(classifier(adversarial, streams(8)))
        told = model.facts["pixels"]
        assert success.any()
        assert torch.equal(told.isfinite(), success)
        assert torch.equal(told[success].long(), count(images, adversarial)[success])
        assert torch.equal(model.facts["unconverged"] == 0, success)
        if pixels == "3":
            assert Pixels(3, eps).allows(images, adversarial).all()


def test_the_reduction_leaves_fewer_pixels_and_a_success() -> None:
    classifier, images, goal = smooth()
    many, _ = attacked("greedyfool:pixels=none,eps=0.2,exchanges=0,reductions=0", classifier, images, goal)
    few, _ = attacked("greedyfool:pixels=none,eps=0.2,exchanges=0", classifier, images, goal)
    assert (count(images, few) <= count(images, many)).all()
    assert count(images, few).sum() < count(images, many).sum()
    for index in range(8):  # each on its own: the success does not hang on the batch
        assert goal[index : index + 1].reached(classifier(few[index : index + 1], streams(1))).all()


@pytest.mark.parametrize("blocks", ["true", "false"])
@pytest.mark.parametrize("eps", [0.1, 0.08])
def test_no_single_pixel_can_go_at_any_of_the_lengths_tried(blocks: str, eps: float) -> None:
    classifier, images, goal = smooth(12)
    text = f"greedyfool:pixels=none,eps={eps},blocks={blocks},eight_bit=false"
    adversarial, _ = attacked(text, classifier, images, goal)
    change = adversarial - images
    step = int(eps * 25.5)
    lengths = [length / 255 for length in range(step, int(eps * 255), step)] + [eps]
    tried = 0
    for index in range(12):
        places = change[index].abs().sum(0).flatten().nonzero()[:, 0]
        if len(places) == 1:
            continue
        for place in places.tolist():
            rest = change[index].flatten(1).clone()
            rest[:, place] = 0
            rest = rest.reshape(change[index].shape) / rest.abs().max()
            candidates = torch.stack([(images[index] + length * rest).clamp(0, 1) for length in lengths])
            margins = goal[index : index + 1][torch.zeros(len(lengths), dtype=torch.int64)].margin(
                classifier(candidates, streams(len(lengths)))
            )
            assert (margins >= -1e-3).all()
            tried += 1
    assert tried > 20


def test_on_a_linear_model_the_pixels_come_in_the_order_of_their_weights() -> None:
    gains = torch.tensor([1.0, 4.0, 2.0, 6.0, 3.0, 5.0], dtype=torch.float64)
    for need, best in ((5.5, {3}), (8.0, {3, 5}), (13.0, {3, 5, 1}), (17.0, {3, 5, 1, 4})):
        classifier, images, goal = linear(gains, need)
        adversarial, model = attacked("greedyfool:pixels=none", classifier, images, goal)
        changed = set((adversarial != images).flatten().nonzero()[:, 0].tolist())
        assert changed == best
        assert model.facts["pixels"].item() == len(best)


def test_under_a_cap_the_pixels_that_are_worth_most_go_to_the_ends_of_their_range() -> None:
    gains = torch.tensor([1.0, 4.0, 2.0, 6.0, 3.0, 5.0], dtype=torch.float64)
    classifier, images, goal = linear(gains, 10.9)
    adversarial, model = attacked("greedyfool:pixels=2,reductions=0", classifier, images, goal)
    assert (adversarial != images).flatten().nonzero()[:, 0].tolist() == [3, 5]
    assert (adversarial.flatten()[[3, 5]] == 1).all()
    assert model.facts["unconverged"].item() == 0


@pytest.mark.parametrize("options", ["", ",steps=1"])
def test_the_exchange_leaves_a_choice_that_the_first_gradient_made_wrongly(options: str) -> None:
    """Pixel 0 promises most where the image is, and turns back on the way; pixel 4 keeps what it promises."""

    class Bent(Classifier):
        num_classes = 2

        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            values = images.flatten(1) - 0.5
            gain = 3 * values[:, 0] - 9 * values[:, 0] ** 2 + 2 * values[:, 4]
            return torch.stack([torch.full_like(gain, 0.9), gain], 1)

    images = torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64)
    goal = Goal(torch.tensor([0]))
    adversarial, _ = attacked(f"greedyfool:pixels=1{options}", Bent(), images, goal)
    assert goal.reached(Bent()(adversarial, streams(1))).all()
    assert (adversarial != images).flatten().nonzero()[:, 0].tolist() == [4]


def test_stage_one_adds_exactly_one_pixel_in_each_step_unless_eps_is_small() -> None:
    classifier, images, goal = linear(torch.arange(1.0, 13.0, dtype=torch.float64), 1e3)
    for steps in (1, 4, 9):
        adversarial, _ = attacked(f"greedyfool:pixels=none,steps={steps}", classifier, images, goal)
        assert count(images, adversarial).item() == steps
    adversarial, _ = attacked("greedyfool:pixels=none,steps=4,eps=0.1", classifier, images, goal)
    assert count(images, adversarial).item() == 4  # the best 1, 2, 3 and 4 hold one another on a linear model


def test_a_cap_limits_the_pixels_and_more_of_them_are_never_weaker() -> None:
    classifier, images, goal = smooth(24)
    successes = []
    for pixels in (1, 2, 4, 8, 42):
        adversarial, _ = attacked(f"greedyfool:pixels={pixels},eps=0.3", classifier, images, goal)
        assert (count(images, adversarial) <= pixels).all()
        successes.append(goal.reached(classifier(adversarial, streams(24))))
    assert all((fewer <= more).all() for fewer, more in itertools.pairwise(successes))
    assert successes[0].sum() < successes[-1].sum() == 24


@pytest.mark.parametrize("eps", [1.0, 0.3])
def test_without_a_cap_no_more_pixels_are_reported_than_a_cap_leaves(eps: float) -> None:
    classifier, images, goal = smooth(24)
    needed = attacked(f"greedyfool:pixels=none,eps={eps}", classifier, images, goal)[1].facts["pixels"]
    greedy = attacked(f"greedyfool:pixels=none,eps={eps},exchanges=0", classifier, images, goal)[1].facts["pixels"]
    assert (needed <= greedy).all()
    assert (needed < greedy).any()
    for pixels in (1, 2, 3, 4):
        capped = (
            attacked(f"greedyfool:pixels={pixels},eps={eps}", classifier, images, goal)[1].facts["unconverged"] == 0
        )
        assert (needed <= pixels).sum() >= capped.sum()


def test_pixels_of_weight_zero_are_never_touched_while_others_are_left() -> None:
    """The left half is flat: every change shows there; the right half is noise."""
    images = images_of(1, 1, 8, 8).expand(6, 1, 8, 8).clone()
    images[..., :4] = 0.5
    classifier = SmoothClassifier(64, 3)
    goal = Goal(classifier(images, streams(6)).argmax(1))
    text = "greedyfool:pixels=none,distortion=sigma,pool=none,steps=20,reductions=0,eps=0.5"
    adversarial, _ = attacked(text, classifier, images, goal)
    changed = (adversarial != images).any(1)
    assert changed.any()
    assert not changed[..., :3].any()


def test_on_a_flat_image_all_pixels_are_open() -> None:
    images = torch.full((4, 3, 7, 6), 0.5, dtype=torch.float64)
    images = images + torch.arange(4, dtype=torch.float64)[:, None, None, None] / 255
    classifier = SmoothClassifier(126, 4)
    goal = Goal(classifier(images, streams(4)).argmax(1))
    adversarial, _ = attacked("greedyfool:pixels=none,distortion=sigma", classifier, images, goal)
    assert goal.reached(classifier(adversarial, streams(4))).all()


class Map(nn.Module):
    """Says that every change shows, but for the last column."""

    def forward(self, images: Tensor) -> Tensor:
        shows = torch.ones_like(images[:, :1])
        return shows * (torch.arange(images.shape[3]) < images.shape[3] - 2)


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("map") / "map.pt2"
    batch = torch.export.Dim.DYNAMIC
    program = torch.export.export(Map(), (torch.zeros(2, 3, 7, 6),), dynamic_shapes=({0: batch},))
    torch.export.save(program, file)
    return file


def test_a_network_from_a_file_says_which_pixels_show(generator: Path) -> None:
    classifier, images, goal = smooth()
    images = images.float()
    classifier = SmoothClassifier(126, 4, dtype=torch.float32)
    goal = Goal(classifier(images, streams(8)).argmax(1))
    text = f"greedyfool:pixels=none,steps=10,reductions=0,pool=none,distortion=generator,generator={generator}"
    make_attack(text).check((3, 7, 6), 4)
    adversarial, _ = attacked(text, classifier, images, goal)
    changed = (adversarial != images).any(1)
    assert changed.any()
    assert not changed[..., :4].any()


def test_a_network_that_does_not_fit_is_refused_before_any_work(generator: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not take"):
        make_attack(f"greedyfool:distortion=generator,generator={generator}").check((3, 9, 9), 4)
    with pytest.raises(InputError, match="no file"):
        make_attack("greedyfool:distortion=generator,generator=nowhere.pt2").check((3, 7, 6), 4)
    (tmp_path / "text.pt2").write_text("no network")
    with pytest.raises(InputError, match="cannot be read"):
        make_attack(f"greedyfool:distortion=generator,generator={tmp_path / 'text.pt2'}").check((3, 7, 6), 4)


def test_the_blur_of_the_authors_program_runs_over_row_ends_and_the_other_does_not() -> None:
    blurred = importlib.import_module("bench.attacks._visibility")._blurred
    spot = torch.zeros(1, 3, 4, dtype=torch.float64)
    spot[0, 1, 3] = 9
    along = blurred(spot, "paper")
    assert along.nonzero()[:, 1:].tolist() == [[1, 2], [1, 3], [2, 0]]
    assert along.max() == 1
    around = blurred(spot, "2d")
    assert around[0, :, :2].sum() == 0
    assert around[0, 1, 3] == 1.5


@pytest.mark.parametrize("text", ["greedyfool:pixels=none", "greedyfool:pixels=2", "greedyfool:eps=0.1"])
def test_the_batch_changes_no_bit(text: str) -> None:
    classifier, images, goal = smooth()
    attack, whole = make_attack(text), attacked(text, classifier, images, goal)[0]
    before = images.clone()
    parts = [
        attack(Model(classifier, streams(8, 99)[part]), images[part], goal[part], streams(8)[part])
        for part in (slice(0, 3), slice(3, 8))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert torch.equal(images, before)


def test_ineligible_images_cost_nothing_and_stay_as_they_are() -> None:
    classifier, images, goal = smooth()
    labels = goal.labels.clone()
    labels[::2] = (labels[::2] + 1) % 4
    adversarial, model = attacked("greedyfool", classifier, images, Goal(labels))
    assert torch.equal(adversarial[::2], images[::2])
    assert not model.forwards[::2].any()
    assert not model.backwards[::2].any()
    assert (model.backwards[1::2] > 0).all()


def test_targeted_success_is_the_target_and_nothing_else() -> None:
    classifier, images, goal = smooth()
    targets = (goal.labels + 1) % 4
    adversarial, model = attacked("greedyfool:pixels=none", classifier, images, Goal(goal.labels, targets))
    hit = classifier(adversarial, streams(8)).argmax(1) == targets
    assert hit.sum() > 4
    assert torch.equal(hit, model.facts["unconverged"] == 0)


def test_confidence_is_the_margin_that_is_left() -> None:
    classifier, images, goal = smooth()
    for confidence in (0.0, 0.5, 1.0):
        text = f"greedyfool:pixels=none,confidence={confidence}"
        adversarial, model = attacked(text, classifier, images, goal)
        margins = goal.margin(classifier(adversarial, streams(8)))
        success = model.facts["unconverged"] == 0
        assert success.any()
        assert (margins[success] < -confidence).all()


def test_changed_values_lie_on_the_8_bit_grid_and_eps_comes_first() -> None:
    classifier, _, _ = smooth()
    images = (images_of(8, 3, 7, 6) * 255).round() / 255
    goal = Goal(classifier(images, streams(8)).argmax(1))
    adversarial, model = attacked("greedyfool:pixels=none", classifier, images, goal)
    success = model.facts["unconverged"] == 0
    assert ((adversarial[success] * 255).round() / 255 == adversarial[success]).all()
    adversarial, _ = attacked("greedyfool:pixels=none,eps=0.3001", classifier, images, goal)
    assert Linf(0.3001).allows(images, adversarial).all()


def test_success_with_a_random_model_must_hold_twice() -> None:
    class Noisy(LinearClassifier):
        random = True

        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            return super().forward(images, rng) + 0.3 * rng.normal(2).to(images.dtype)

    images = images_of(16, 1, 4, 4)
    weights = torch.zeros(2, 16, dtype=torch.float64)
    weights[1] = 1
    classifier = Noisy(weights, torch.tensor([10.5, 0.0]).double())
    goal = Goal(torch.zeros(16, dtype=torch.int64))
    model = model_of(classifier, 16, draws=4)
    adversarial = make_attack("greedyfool:pixels=none,confidence=1")(model, images, goal, streams(16))
    assert (classifier(adversarial, streams(16, 5)).argmax(1) == 1).double().mean() > 0.8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("greedyfool:pixels=0", "1 or more"),
        ("greedyfool:eps=0", "share of the range"),
        ("greedyfool:eps=2", "share of the range"),
        ("greedyfool:steps=0", "1 or more"),
        ("greedyfool:reductions=-1", "0 or more"),
        ("greedyfool:exchanges=-1", "0 or more"),
        ("greedyfool:confidence=-1", "0 or more"),
        ("greedyfool:distortion=generator", "belong together"),
        ("greedyfool:generator=x.pt2", "belong together"),
        ("greedyfool:distortion=hill", "one of"),
    ],
)
def test_bad_parameters_are_refused_before_any_work(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_attack(text)


def test_the_budget_in_words() -> None:
    assert str(make_attack("greedyfool").budget) == "10 pixels"
    assert str(make_attack("greedyfool:eps=10/255").budget) == "10 pixels, L∞ ≤ 10/255"
    assert str(make_attack("greedyfool:paper,eps=10/255").budget) == "L∞ ≤ 10/255"
