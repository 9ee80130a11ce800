"""The ensembles against the ceiling: lists of all candidates, ten times the budget, planted images, random content."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import combinations, pairwise, product

import pytest
import torch
from torch import Tensor, nn

from bench.contracts import Attack, Classifier, Goal, Model, Patch, Pixels, Streams
from bench.plugins.registry import make_attack

from ..toys import streams
from .digit_net import ATTACKED, classifier, digits

pytestmark = pytest.mark.slow

GAIN = 0.02 * ATTACKED
"""How many more images may be fooled by what costs far more than the ensemble."""
SIDE = 8


def fooled(attack: Attack, rows: Tensor, targeted: bool) -> Tensor:
    """Which of these images the attack fools."""
    images, rng, goal = digits()[0][rows], streams(ATTACKED)[rows], goal_of(rows, targeted)
    adversarial = attack(Model(classifier(), rng), images, goal, rng.derive("attack"))
    assert attack.allows(images, adversarial).all()
    return goal.reached(classifier()(adversarial, rng))


def goal_of(rows: Tensor, targeted: bool) -> Goal:
    """Any other digit, or the next one: the network has too little to say against a patch to any other."""
    labels = digits()[1][rows]
    return Goal(labels, (labels + 1) % 10 if targeted else None)


@cache
def left(text: str, targeted: bool, effort: str = "standard") -> Tensor:
    """The images that the attack leaves."""
    rows = torch.arange(ATTACKED)
    return rows[~fooled(make_attack(text, effort), rows, targeted)]


def possible(rows: Tensor, targeted: bool, masks: Tensor, colours: Tensor) -> int:
    """How many of these images any of these colours (m, p) at any of these masks (k, p) fools."""

    places, content = masks.repeat_interleave(len(colours), 0), colours.repeat(len(masks), 1)

    def any_fools(row: Tensor) -> bool:
        variants = digits()[0][row].flatten().repeat(len(places), 1).scatter(1, places, content)
        logits = classifier()(variants.reshape(-1, 1, SIDE, SIDE), streams(len(variants)))
        return bool(goal_of(row.expand(len(variants)), targeted).reached(logits).any())

    with torch.no_grad():
        return sum(map(any_fools, rows))


def listed(levels: int, pixels: int) -> Tensor:
    """All colours of so many pixels in so many levels of grey, shape (m, p)."""
    return torch.tensor(list(product(torch.linspace(0, 1, levels).tolist(), repeat=pixels)))


def squares(side: int) -> Tensor:
    """The flat indices of every square, one row each."""
    places = torch.arange(SIDE**2).reshape(SIDE, SIDE)
    return places.unfold(0, side, 1).unfold(1, side, 1).reshape(-1, side * side)


@pytest.mark.parametrize(
    ("text", "targeted", "masks", "levels"),
    [
        ("autopixel:pixels=1", False, torch.arange(SIDE**2)[:, None], 17),
        ("autopixel:pixels=2", False, torch.tensor(list(combinations(range(SIDE**2), 2))), 3),
        ("autopatch:area=0.0625", True, squares(2), 3),
    ],
)
def test_a_list_of_all_candidates_fools_hardly_more_than_the_ensemble(
    text: str, targeted: bool, masks: Tensor, levels: int
) -> None:
    rows = left(text, targeted)
    assert 5 * GAIN < len(rows) < 0.9 * ATTACKED, "the budget is too small or too large to tell anything"
    assert possible(rows, targeted, masks, listed(levels, masks.shape[1])) <= GAIN


@pytest.mark.parametrize(
    ("text", "targeted", "more"),
    [
        ("autopatch:area=0.0625", True, "lavan:area=0.0625,rounds=10"),
        ("autopixel:pixels=2", False, "greedyfool:pixels=2,exchanges=1000"),
    ],
)
def test_ten_times_the_budget_fools_hardly_more(text: str, targeted: bool, more: str) -> None:
    assert int(fooled(make_attack(more), left(text, targeted), targeted).sum()) <= GAIN


@pytest.mark.parametrize(
    ("text", "targeted", "control"),
    [
        ("autopatch:area=0.0625", True, "random-patch:area=0.0625,rotation=0,scale=1:1"),
        ("lavan:area=0.0625", True, "random-patch:area=0.0625,rotation=0,scale=1:1"),
        ("autopixel:pixels=2", False, "random-pixel:pixels=2"),
    ],
)
def test_random_content_fools_nothing_that_the_attack_left(text: str, targeted: bool, control: str) -> None:
    rows, attack = left(text, targeted), make_attack(control)
    rng, goal = streams(ATTACKED)[rows], goal_of(rows, targeted)
    for turn in range(30):
        tried = attack(Model(classifier(), rng), digits()[0][rows], goal, rng.derive(f"turn {turn}"))
        assert not goal.reached(classifier()(tried, rng)).any()


def test_more_effort_of_lavan_never_fools_fewer_images() -> None:
    text = "lavan:area=0.0625"
    efforts = [left(text, True, "quick"), left(text, True), left(f"{text},rounds=7", True)]
    for less, more in pairwise(efforts):
        assert set(more.tolist()) <= set(less.tolist())
    assert len(efforts[-1]) < len(efforts[0])


class ReadOut(Classifier):
    """Features of the network behind a new last layer with two classes, which only a planted image crosses."""

    num_classes = 2

    def __init__(self, clean: Tensor, planted: Tensor, others: Tensor) -> None:
        super().__init__()
        network = classifier().network
        assert isinstance(network, nn.Sequential)
        self.features = network[:-1]
        clean_features, planted_features, other = (self.features(part).detach() for part in (clean, planted, others))
        self.direction = planted_features[0] - clean_features[0]
        highest, wanted = (other @ self.direction).max(), planted_features[0] @ self.direction
        self.margin, self.threshold = wanted - highest, (wanted + highest) / 2

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        """The second class wins beyond the threshold alone."""
        beyond = (self.features(images) * self.direction).sum(1) - self.threshold
        return torch.stack([torch.zeros_like(beyond), beyond], 1)


def in_budget(budget: Patch | Pixels, image: Tensor, count: int, seed: int) -> Tensor:
    """Random images within the budget, in black and white."""
    random = torch.Generator().manual_seed(seed)
    masks = squares(3) if isinstance(budget, Patch) else torch.rand(500, 64, generator=random).argsort(1)[:, :3]
    chosen = masks[torch.randint(len(masks), (count,), generator=random)]
    variants = image.flatten().repeat(count, 1)
    content = torch.randint(2, chosen.shape, generator=random).float()
    return variants.scatter(1, chosen, content).reshape(count, 1, SIDE, SIDE)


def readouts(budget: Patch | Pixels) -> Iterator[tuple[ReadOut, Tensor]]:
    for row in range(40):
        image = digits()[0][row : row + 1]
        inside = in_budget(budget, image, 200, row)
        net = ReadOut(image, inside[:1], torch.cat([image, inside[1:]]))
        if net.margin > 0:
            yield net, image


@pytest.mark.parametrize("text", ["autopatch:area=0.1406", "autopixel:pixels=3", "lavan:area=0.1406"])
def test_an_image_planted_inside_the_budget_is_found(text: str) -> None:
    attack = make_attack(text)
    budget = attack.budget
    assert isinstance(budget, Patch | Pixels)
    successes = []
    for net, image in readouts(budget):
        goal = Goal(torch.zeros(1, dtype=torch.int64))
        adversarial = attack(Model(net, streams(1)), image, goal, streams(1).derive("attack"))
        successes.append(bool(goal.reached(net(adversarial, streams(1)))[0]))
    assert len(successes) >= 15
    assert sum(successes) >= 0.95 * len(successes)
