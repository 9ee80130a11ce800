"""Certified defenses: what they prove holds against brute force, and what they cannot prove they do not claim."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from bench.contracts import (
    Artifact,
    Budget,
    CertifiedDefense,
    Classifier,
    Goal,
    InputError,
    Linf,
    Patch,
    Pixels,
    Streams,
)
from bench.plugins.registry import load_plugin, make_defense

from ..toys import ToyExamples, plugin_module, streams

SMALL = "training_images=60,epochs=6"
NAMES = {
    "patchcleanser": "patchcleanser:masks=3",
    "patchguard": f"patchguard:area=0.02,width=8,{SMALL}",
    "derandomized-smoothing": f"derandomized-smoothing:{SMALL}",
    "derandomized-smoothing (block)": f"derandomized-smoothing:parts=block,{SMALL}",
    "random-ablation": f"random-ablation:groups=5,partitions=2,{SMALL}",
}


class Brightness(Classifier):
    """Two classes, dark and bright, by the mean of all pixels; a few of them can turn it."""

    num_classes = 2

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        mean = images.mean((1, 2, 3)) - 0.5
        return torch.stack([-mean, mean], 1) * 50


class Hash(Classifier):
    """Classes that hang on everything, so that masked images often disagree; independent of the batch."""

    num_classes = 3

    def __init__(self, pixels: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = torch.randn(pixels, 12, generator=generator).double()
        self.second = torch.randn(12, 3, generator=generator).double()

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        flat = images.flatten(1).double()
        hidden = torch.tanh((flat[:, :, None] * self.first).sum(1))
        return (hidden[:, :, None] * self.second).sum(1) * 3


class Sure(Classifier):
    """Dark and bright as above, but with probabilities that are 0 and 1 to float32."""

    num_classes = 2

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        return Brightness()(images, rng) * 10


class ColumnNet(nn.Module):
    """Dark and bright, for parts of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(5.0))

    def forward(self, parts: Tensor) -> Tensor:
        mean = (parts.mean((1, 2, 3)) - 0.5) * self.scale
        return torch.stack([-mean, mean], 1)


def shades(count: int, side: int = 8, spread: float = 0.3, channels: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images around a shade of grey, and whether they are bright."""
    generator = torch.Generator().manual_seed(seed)
    shade = (torch.rand(count, generator=generator) - 0.5) * 2 * spread
    noise = (torch.rand(count, channels, side, side, generator=generator) - 0.5) * 0.2
    images = (0.5 + shade[:, None, None, None] + noise).clamp(0, 1)
    return images, (images.mean((1, 2, 3)) > 0.5).long()


def attacked_everywhere(images: Tensor, budget: Budget, tall: int, wide: int) -> Tensor:
    """Each image with black, with white and with noise in a tall×wide box, at every position: (n, variants, …)."""
    generator = torch.Generator().manual_seed(1)
    variants = []
    for row, column in itertools.product(range(images.shape[2] - tall + 1), range(images.shape[3] - wide + 1)):
        for content in (0.0, 1.0, None):
            changed = images.clone()
            box = changed[:, :, row : row + tall, column : column + wide]
            box[:] = torch.rand(box.shape, generator=generator) if content is None else content
            assert budget.allows(images, changed).all()
            variants.append(changed)
    return torch.stack(variants, 1)


def made(text: str) -> CertifiedDefense:
    defense = make_defense(text)
    assert isinstance(defense, CertifiedDefense)
    return defense


@pytest.fixture(params=NAMES, scope="module")
def case(request: pytest.FixtureRequest) -> tuple[CertifiedDefense, Classifier, Artifact]:
    """A certified defense after learning, with its model."""
    defense = made(NAMES[request.param])
    images, labels = shades(60, seed=5)
    model = Brightness()
    return defense, model, defense.learn(model, ToyExamples(images, labels), streams(60))


Case = tuple[CertifiedDefense, Classifier, Artifact]


BOXES = {
    Patch(0.02): [(1, 1)],
    Patch(0.05): [(1, 3), (3, 1)],
    Patch(0.05, turned=False): [(1, 2), (2, 1)],
    Patch(0.06, turned=False): [(2, 2)],
    Pixels(1): [(1, 1)],
    Pixels(2): [(1, 2)],
}


@pytest.mark.parametrize("budget", BOXES, ids=str)
def test_no_brute_force_turns_a_certified_image(case: Case, budget: Budget) -> None:
    defense, model, learned = case
    images, labels = shades(12)
    defended = defense.protect(model, learned)
    certified = defense.certify(model, learned, images, labels, budget)
    assert (defended(images, streams(12)).argmax(1) == labels)[certified].all()
    for tall, wide in BOXES[budget]:
        attacked = attacked_everywhere(images, budget, tall, wide)
        answers = defended(attacked.flatten(0, 1), streams(attacked.shape[:2].numel())).argmax(1)
        kept = (answers.unflatten(0, attacked.shape[:2]) == labels[:, None]).all(1)
        assert kept[certified].all()


@pytest.mark.parametrize(
    ("text", "turned"),
    [("patchcleanser:area=0.06,turned=false,masks=3", False), ("patchcleanser:area=0.06,masks=2", True)],
)
def test_patchcleanser_keeps_what_it_proves_where_the_bare_model_is_turned(text: str, turned: bool) -> None:
    defense, budget, model = made(text), Patch(0.06, turned), Brightness()
    images, labels = shades(60, spread=0.02)
    certified = defense.certify(model, {}, images, labels, budget)
    attacked = attacked_everywhere(images, budget, 2, 2)
    many = streams(attacked.shape[:2].numel())
    answers, bare = (
        classifier(attacked.flatten(0, 1), many).argmax(1).unflatten(0, attacked.shape[:2]) == labels[:, None]
        for classifier in (defense.protect(model, {}), model)
    )
    assert certified.any()
    assert not certified.all()
    assert not bare.all(1)[certified].all()
    assert answers.all(1)[certified].all()


class Sums(Classifier):
    """Two classes from a linear layer on the pixels, which can be trained."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 2)
        with torch.no_grad():
            self.layer.weight.zero_()
            self.layer.bias.zero_()

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1) - 0.5)
        return logits


def test_training_under_masks_gives_patchcleanser_more_to_prove_and_leaves_the_bare_model_alone() -> None:
    images, labels = shades(60, seed=5)
    bare = Sums()
    defense = made("patchcleanser:area=0.06,masks=3,epochs=20,learning_rate=0.05,training_images=60")
    learned = defense.learn(bare, ToyExamples(images, labels), streams(60))
    budget = Patch(0.06)
    untrained = made("patchcleanser:area=0.06,masks=3").certify(bare, {}, images, labels, budget)
    assert not bare.layer.weight.any()
    assert defense.certify(bare, learned, images, labels, budget).sum() > untrained.sum()
    right = defense.protect(bare, learned)(images, streams(60)).argmax(1) == labels
    assert right[defense.certify(bare, learned, images, labels, budget)].all()


def test_a_patch_budget_that_the_masks_do_not_cover_proves_nothing() -> None:
    images, labels = torch.ones(2, 1, 16, 16), torch.ones(2, dtype=torch.int64)
    defense = made("patchcleanser:area=0.02")
    assert defense.certify(Brightness(), {}, images, labels, Patch(0.02)).all()
    assert defense.certify(Brightness(), {}, images, labels, Patch(0.01)).all()
    assert not defense.certify(Brightness(), {}, images, labels, Patch(0.2)).any()
    upright = made("patchcleanser:area=0.02,turned=false")
    assert upright.certify(Brightness(), {}, images, labels, Patch(0.02, turned=False)).all()
    assert not upright.certify(Brightness(), {}, images, labels, Patch(0.02)).any()
    assert not defense.certify(Brightness(), {}, images, labels, Pixels(2)).any()


def test_nothing_is_certified_for_changes_of_every_pixel(case: Case) -> None:
    defense, model, learned = case
    images, labels = shades(10)
    assert not defense.certify(model, learned, images, labels, Linf(1 / 255)).any()


def test_nothing_is_certified_for_a_random_model() -> None:
    class Random(Brightness):
        random = True

    images, labels = torch.ones(2, 1, 16, 16), torch.ones(2, dtype=torch.int64)
    assert not made("patchcleanser:area=0.02").certify(Random(), {}, images, labels, Patch(0.02)).any()


def test_what_is_certified_shrinks_as_the_budget_grows(case: Case) -> None:
    defense, model, learned = case
    images, labels = shades(40)
    sizes = [
        [Pixels(1), Pixels(2), Pixels(4)],
        [Patch(0.015), Patch(0.03), Patch(0.06), Patch(0.2)],
        [Patch(0.03, turned=False), Patch(0.06, turned=False), Patch(0.06)],
    ]
    for budgets in sizes:
        proofs = [defense.certify(model, learned, images, labels, budget) for budget in budgets]
        for small, large in itertools.pairwise(proofs):
            assert (small | ~large).all()


def test_the_answer_for_an_image_does_not_depend_on_the_batch(case: Case) -> None:
    defense, model, learned = case
    images, _ = shades(9)
    before = images.clone()
    for classifier in (defense.protect(model, learned), *defense.attacker_views(model, learned).values()):
        rng = streams(9)
        whole = classifier(images, rng)
        parts = torch.cat([classifier(images[:2], rng[:2]), classifier(images[2:], rng[2:])])
        torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)
        assert torch.equal(whole.argmax(1), parts.argmax(1))
        assert classifier(images[:0], rng[:0]).shape == (0, 2)
    assert torch.equal(images, before)


def test_the_view_has_a_gradient_that_leads_somewhere(case: Case) -> None:
    defense, model, learned = case
    images, labels = shades(6)
    watched = images.clone().requires_grad_()
    goal = Goal(labels)
    for view in defense.attacker_views(model, learned).values():
        for loss in (goal.cross_entropy, goal.margin):
            (gradient,) = torch.autograd.grad(loss(view(watched, streams(6))).sum(), watched)
            assert gradient.isfinite().all()
            assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_an_attacker_sees_the_true_answers_while_following_a_substitute(case: Case) -> None:
    defense, model, learned = case
    images, _ = shades(6)
    defended = defense.protect(model, learned)(images, streams(6))
    views = defense.attacker_views(model, learned)
    del views["bare"]
    for view in views.values():
        assert torch.equal(view(images.clone().requires_grad_(), streams(6)), defended)


def test_masks_that_are_sure_still_show_the_attacker_a_way() -> None:
    images = torch.full((1, 1, 8, 8), 0.99).requires_grad_()
    (view, _) = made("patchcleanser:masks=3").attacker_views(Sure(), {}).values()
    (gradient,) = torch.autograd.grad(Goal(torch.tensor([1])).margin(view(images, streams(1))).sum(), images)
    assert (gradient[..., 0, :] > 0).all()


def test_parts_that_no_longer_vote_for_the_answer_get_no_more_of_the_gradient() -> None:
    certified = plugin_module("defenses._ablation")
    windows = plugin_module("defenses.derandomized_smoothing").Windows(4, 4, 4, 1)  # each of four columns
    voting = certified.Voting(ColumnNet(), windows, 2, 0.5)
    images = torch.full((1, 1, 4, 4), 0.9)
    images[..., 0] = 0.1  # this column votes for the other class already
    watched = images.requires_grad_()
    followed = voting.supporting(watched, streams(1), voting(images.detach(), streams(1)))
    (gradient,) = torch.autograd.grad(followed[0, 1] - followed[0, 0], watched)
    assert (gradient[..., 0] == 0).all()
    assert (gradient[..., 1:] > 0).all()


def test_learning_again_gives_the_same_and_leaves_the_global_generator_alone() -> None:
    images, labels = shades(30)
    model = Brightness()
    for name in ("derandomized-smoothing", "random-ablation"):
        defense = made(NAMES[name])
        before = torch.get_rng_state()
        once, twice = (defense.learn(model, ToyExamples(images, labels), streams(30)) for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before)
        assert once.keys() == twice.keys()
        assert all(torch.equal(once[key], twice[key]) for key in once)


@pytest.mark.parametrize("name", ["derandomized-smoothing", "derandomized-smoothing (block)", "random-ablation"])
def test_the_vote_learns_what_a_part_can_tell(name: str) -> None:
    defense = made(NAMES[name].replace("epochs=6", "epochs=20"))
    images, labels = shades(60, channels=3, seed=5)
    learned = defense.learn(Brightness(), ToyExamples(images, labels), streams(60))
    fresh, truth = shades(80, channels=3, seed=6)
    defended = defense.protect(Brightness(), learned)
    assert (defended(fresh, streams(80)).argmax(1) == truth).double().mean() > 0.85
    assert defense.certify(Brightness(), learned, fresh, truth, Pixels(1)).double().mean() > 0.5


def test_without_training_images_the_error_says_what_is_missing() -> None:
    empty = ToyExamples(torch.rand(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64))
    for name in ("derandomized-smoothing", "random-ablation"):
        with pytest.raises(InputError, match="training images"):
            made(NAMES[name]).learn(Brightness(), empty, streams(0))


@pytest.mark.parametrize("name", ["patchcleanser", "derandomized-smoothing", "random-ablation"])
def test_every_preset_can_be_made(name: str) -> None:
    for preset in load_plugin("defense", name).presets:
        assert make_defense(f"{name}:{preset}").kind == "certified"


@pytest.mark.parametrize(
    "text",
    [
        "patchcleanser:area=0",
        "patchcleanser:masks=0",
        "patchcleanser:fill=2",
        "derandomized-smoothing:size=0",
        "derandomized-smoothing:threshold=0",
        "derandomized-smoothing:epochs=0",
        "random-ablation:groups=1",
        "random-ablation:partitions=0",
    ],
)
def test_parameters_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="Expected"):
        make_defense(text)


def test_parts_that_do_not_fit_the_image_are_refused() -> None:
    with pytest.raises(InputError, match="smaller than the image"):
        make_defense("derandomized-smoothing:size=8").check((3, 8, 8), 2)
    with pytest.raises(InputError, match="at most as many groups as pixels"):
        make_defense("random-ablation:groups=65").check((3, 8, 8), 2)


def test_the_masks_cover_every_box_and_stay_inside_the_image() -> None:
    patchcleanser = plugin_module("defenses.patchcleanser")
    spans, covers = patchcleanser.spans, patchcleanser.covers
    for length in range(1, 34):
        for box in range(1, length + 1):
            for masks in (1, 2, 3, 6, 50):
                where = spans(length, box, masks)
                assert covers(where, box, length)
                assert all(0 <= start < end <= length for start, end in where)
                assert len(where) <= masks


def test_masks_that_leave_a_gap_do_not_count_as_a_cover() -> None:
    covers = plugin_module("defenses.patchcleanser").covers
    assert covers([(0, 5), (3, 8)], 3, 8)
    assert not covers([(0, 5), (3, 8)], 4, 8)


@pytest.mark.parametrize("masks", [2, 3, 6])
def test_double_masking_answers_as_the_algorithm_read_image_by_image(masks: int) -> None:
    defense = load_plugin("defense", "patchcleanser")(area=0.02, masks=masks)
    model = Hash(49)
    images = torch.rand(150, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    hidden = defense.hiding(7, 7)

    def classes(image: Tensor, under: Tensor) -> list[int]:
        seen = torch.where(under[:, None], torch.tensor(0.5), image)
        return [int(one) for one in model(seen, streams(len(under))).argmax(1)]

    expected, second_rounds = [], 0
    for image in images:
        votes = classes(image, hidden)
        answer = max(range(3), key=lambda one: (votes.count(one), -one))
        for number, vote in enumerate(votes):
            if vote == answer:
                continue
            if set(classes(image, hidden[number] | hidden)) == {vote}:
                answer, second_rounds = vote, second_rounds + 1
                break
        expected.append(answer)
    answers = defense.protect(model, {})(images, streams(150)).argmax(1)
    assert answers.tolist() == expected
    assert second_rounds > 0


def test_an_ablation_depends_on_the_pixels_that_it_says_it_retains_and_on_no_other() -> None:
    windows, groups = (
        plugin_module("defenses.derandomized_smoothing").Windows,
        plugin_module("defenses.random_ablation").Groups,
    )
    member = torch.randint(0, 4, (2, 5, 6), generator=torch.Generator().manual_seed(0))
    sets = [
        windows(5, 6, 5, 2),
        windows(5, 6, 3, 2),
        groups(member, 4),
    ]
    image = torch.rand(1, 2, 5, 6, generator=torch.Generator().manual_seed(1))
    for ablations in sets:
        retains = ablations.retains()
        which = torch.arange(ablations.count)
        assert len(retains) == ablations.count
        usual = ablations.apply(image.expand(ablations.count, -1, -1, -1), which)
        for row, column in itertools.product(range(5), range(6)):
            changed = image.clone()
            changed[:, :, row, column] += 0.5
            now = ablations.apply(changed.expand(ablations.count, -1, -1, -1), which)
            assert torch.equal((now != usual).flatten(1).any(1), retains[:, row, column])


def test_every_pixel_lies_in_one_group_of_each_partition() -> None:
    defense = made("random-ablation:groups=7,partitions=3,training_images=4,epochs=1")
    images, labels = shades(4)
    learned = defense.learn(Brightness(), ToyExamples(images, labels), streams(4))
    masks = plugin_module("defenses.random_ablation").Groups(learned["member"], 7).masks.unflatten(0, (3, 7))
    assert (masks.sum(1) == 1).all()
    sizes = masks.sum((2, 3))
    assert (sizes.amax(1) - sizes.amin(1) <= 1).all()


def random_votes(count: int, ablations: int, classes: int) -> tuple[Tensor, Tensor]:
    """Votes that mostly go to the label, and the labels."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, classes, (count,), generator=generator)
    strength = torch.rand(count, 1, 1, generator=generator)
    chances = 0.5 * (1 - strength) + strength * nn.functional.one_hot(labels, classes)[:, None]
    return torch.rand(count, ablations, classes, generator=generator) < chances, labels


@pytest.mark.parametrize(
    "budget", [Patch(0.015), Patch(0.03), Patch(0.06, turned=False), Pixels(1), Pixels(2)], ids=str
)
def test_what_is_certified_of_votes_is_what_survives_the_worst_an_attacker_can_do_to_them(budget: Budget) -> None:
    proven = plugin_module("defenses._ablation").certified
    retains = plugin_module("defenses.derandomized_smoothing").Windows(8, 8, 2, 2).retains()
    votes, labels = random_votes(200, len(retains), 3)
    if isinstance(budget, Patch):
        tall, wide = budget.box(8, 8)
        corners = itertools.product(range(9 - tall), range(9 - wide))
        reached = [retains[:, row : row + tall, column : column + wide].flatten(1).any(1) for row, column in corners]
    else:
        pixels = retains.flatten(1)
        reached = [pixels[:, list(some)].any(1) for some in itertools.combinations(range(64), budget.count)]
    safe = torch.ones(200, dtype=torch.bool)
    for touched, rival in itertools.product(reached, range(3)):
        forged = votes.clone()
        forged[:, touched] = False
        forged[:, touched, rival] = True
        counts = forged.sum(1)
        own = counts.gather(1, labels[:, None])[:, 0]
        safe &= (rival == labels) | (own > counts[:, rival])
    claimed = proven(votes, labels, retains, budget)
    assert (safe | ~claimed).all()
    if budget != Pixels(2):  # losses of two pixels are added though some ablations see both
        assert torch.equal(safe, claimed)
    assert safe.any()
    assert not safe.all()


def test_no_less_is_certified_than_by_counting_the_ablations_that_a_patch_reaches() -> None:
    proven = plugin_module("defenses._ablation").certified
    retains = plugin_module("defenses.derandomized_smoothing").Windows(20, 20, 20, 3).retains()
    votes, labels = random_votes(300, 20, 4)
    side = Patch(0.01).box(20, 20)[1]
    counts = votes.sum(1)
    own = counts.gather(1, labels[:, None])[:, 0]
    rival = counts.scatter(1, labels[:, None], -1).amax(1)
    by_counting = own - rival > 2 * (side + 3 - 1)
    claimed = proven(votes, labels, retains, Patch(0.01))
    assert (claimed | ~by_counting).all()
    assert claimed.sum() > by_counting.sum()


def test_gradients_through_pieces_are_those_of_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    module = plugin_module("defenses._passes")
    monkeypatch.setattr(module, "piece_of", lambda shape: 7)
    images = torch.rand(5, 1, 4, 4, dtype=torch.float64).requires_grad_()
    rows = torch.arange(40)

    def work(part: slice) -> Tensor:
        return torch.sin(images[rows[part] // 8] * (1 + rows[part, None, None, None] % 8)).flatten(1)

    in_one = work(slice(0, 40))
    in_many = module.in_passes(work, 40, (1, 4, 4))
    assert torch.equal(in_one, in_many)
    first, second = (torch.autograd.grad((out**2).sum(), images)[0] for out in (in_one, in_many))
    torch.testing.assert_close(first, second)


def test_patchguard_proves_something_on_images_that_differ_everywhere() -> None:
    images, labels = shades(80, side=32, seed=1)
    defense = made("patchguard:area=0.02,turned=false,width=8,training_images=80,epochs=8")
    learned = defense.learn(Brightness(), ToyExamples(images, labels), streams(80))
    proven = defense.certify(Brightness(), learned, images, labels, Patch(0.02, turned=False))
    right = defense.protect(Brightness(), learned)(images, streams(80)).argmax(1) == labels
    assert proven.double().mean() > 0.5
    assert right[proven].all()
    assert not defense.certify(Brightness(), learned, images, labels, Patch(0.02)).any()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        attacked = images.clone()
        row, column = torch.randint(28, (2,), generator=generator).tolist()
        attacked[:, :, row : row + 4, column : column + 4] = torch.rand(80, 1, 4, 4, generator=generator).round()
        answers = defense.protect(Brightness(), learned)(attacked, streams(80)).argmax(1)
        assert (answers == labels)[proven].all()


@pytest.mark.parametrize(("size", "factor"), [(64, 2), (32, 1), (16, 1)])
def test_a_patch_reaches_no_more_of_patchguards_places_than_its_window(size: int, factor: int) -> None:
    module = plugin_module("defenses.patchguard")
    net, images = module.LocalNet(1, 2, 4).eval(), torch.rand(1, 1, size, size)
    defense = load_plugin("defense", "patchguard")(area=16 / size**2, turned=False)
    assert module.factors(images)[0] == factor
    window = defense.window(images, net(images))
    for row, column in ((0, 0), (5, 6), (size - 4, 3)):
        other = images.clone()
        other[:, :, row : row + 4, column : column + 4] += 1
        changed = (net(images) != net(other)).any(1)[0]
        for reached, allowed in ((changed.any(1), window[0]), (changed.any(0), window[1])):
            places = reached.nonzero()[:, 0]
            assert int(places[-1] - places[0]) < allowed
