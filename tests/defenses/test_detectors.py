"""Detectors: when they reject, what they leave alone, and the gradients that they owe an adaptive attacker."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.contracts import Classifier, Goal, InputError, Streams
from bench.plugins.registry import load_plugin, make_defense

from ..toys import ToyExamples, plugin_module, streams

NAMES = {
    "squeeze": "squeeze:calibration_images=40,search=5",
    "sentinet": "sentinet:overlays=8,calibration_images=40,seen=3",
    "jujutsu": "jujutsu:samples=4,holdouts=12,seen=3",
    "annnet": "annnet:training_images=40,tries=4,epochs=4",
}


class Lamps(Classifier):
    """Takes an image for its strongest colour, unless it finds pixels of saturated magenta, which mean class 3."""

    num_classes = 4

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 1)
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.bias.zero_()
            for colour in range(3):
                self.features.weight[colour, colour] = 10
            self.features.weight[3] = torch.tensor([4e4, -4e4, 4e4])[:, None, None]
            self.features.bias[3] = -7.8e4
        self.lit = nn.ReLU()
        self.requires_grad_(False)

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        features: Tensor = self.lit(self.features(images.float()))
        return features.mean((2, 3)).to(images.dtype)


def coloured(count: int, size: tuple[int, int] = (16, 16), seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth images with a disc of one of three colours, and that colour."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    grey = torch.rand(count, 1, 3, 3, generator=generator) * 0.3 + 0.1
    images = nn.functional.interpolate(grey, size, mode="bilinear").repeat(1, 3, 1, 1)
    centres = torch.rand(count, 2, generator=generator) * 6 + 5
    radii = torch.rand(count, generator=generator) * 4 + 3
    rows, columns = torch.arange(size[0])[None, :, None], torch.arange(size[1])[None, None, :]
    away = (rows - centres[:, 0, None, None]).square() + (columns - centres[:, 1, None, None]).square()
    images[torch.arange(count), labels] += 0.4 * (away <= radii[:, None, None].square())
    return images, labels


def patched(images: Tensor, side: int = 4) -> Tensor:
    """The same with a square of saturated magenta."""
    attacked = images.clone()
    attacked[:, :, 5 : 5 + side, 6 : 6 + side] = torch.tensor([1.0, 0.0, 1.0])[None, :, None, None]
    return attacked


Case = tuple[Classifier, list[Classifier]]


@pytest.fixture(params=NAMES)
def case(request: pytest.FixtureRequest) -> Case:
    """A detector after learning: the defended model, and what an adaptive attacker sees besides the bare one."""
    defense = make_defense(NAMES[request.param])
    images, labels = coloured(60)
    model = Lamps()
    learned = defense.learn(model, ToyExamples(images, labels), streams(60))
    *views, bare = defense.attacker_views(model, learned).values()
    assert bare is model
    return defense.protect(model, learned), views


def test_the_answer_for_an_image_does_not_depend_on_the_batch(case: Case) -> None:
    defended, _ = case
    images = torch.cat([coloured(5, seed=3)[0], patched(coloured(4, seed=4)[0])])
    whole, again = defended(images, streams(9)), defended(images, streams(9))
    rng = streams(9)
    parts = torch.cat([defended(images[:2], rng[:2]), defended(images[2:], rng[2:])])
    assert torch.equal(whole, again)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)
    assert torch.equal(whole.argmax(1), parts.argmax(1))


def test_a_detector_leaves_its_input_alone(case: Case) -> None:
    defended, views = case
    images = patched(coloured(4, seed=3)[0])
    before = images.clone()
    for classifier in (defended, *views):
        classifier(images, streams(4))
        assert torch.equal(images, before)


def test_an_empty_batch_gives_no_rows(case: Case) -> None:
    defended, views = case
    for classifier in (defended, *views):
        assert classifier(torch.rand(0, 3, 16, 16), streams(0)).shape == (0, 4 + classifier.rejects)


def test_every_view_has_a_gradient_that_leads_somewhere(case: Case) -> None:
    _, views = case
    images, labels = coloured(4, seed=5)
    watched = images.clone().requires_grad_()
    for view in views:
        goal = Goal(labels, rejects=view.rejects)
        for loss in (goal.cross_entropy, goal.margin):
            (gradient,) = torch.autograd.grad(loss(view(watched, streams(4))).sum(), watched)
            assert gradient.isfinite().all()
            assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_clean_images_are_rarely_rejected(case: Case) -> None:
    defended, _ = case
    images, labels = coloured(100, seed=11)
    right = defended(images, streams(100)).argmax(1) == labels
    assert right.double().mean() >= 0.8


@pytest.mark.parametrize("name", NAMES)
def test_without_training_images_the_error_says_what_to_do(name: str) -> None:
    empty = ToyExamples(torch.rand(0, 3, 16, 16), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(InputError, match="train=FRACTION"):
        make_defense(NAMES[name]).learn(Lamps(), empty, streams(0))


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_can_be_made(name: str) -> None:
    for preset in load_plugin("defense", name).presets:
        assert make_defense(f"{name}:{preset}").kind == "detector"


@pytest.mark.parametrize(
    "text",
    [
        "squeeze:bits=9",
        "squeeze:median=1",
        "squeeze:bits=0,median=0,search=0",
        "squeeze:search=4",
        "squeeze:false_positive_rate=0",
        "sentinet:salient=0",
        "sentinet:overlays=2,seen=3",
        "jujutsu:radius=0.6",
        "jujutsu:holdouts=1",
        "annnet:held_out=1",
        "annnet:tries=0",
    ],
)
def test_parameters_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="Expected"):
        make_defense(text)


@pytest.mark.parametrize("inner", [False, True])
def test_rejection_is_the_largest_logit_exactly_where_the_score_exceeds_the_threshold(inner: bool) -> None:
    with_rejection = plugin_module("defenses._rejection").with_rejection
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)) * 3
    logits[3] *= 1e6
    if inner:
        logits[:, 4] = -1e9
        logits[7, 4] = 1e9
    excess = torch.tensor([1.0, -1.0, 1e-30, 1e-30, -1e-30, 0.0, 1e9, -1e9])
    rejected = excess > 0
    answer = with_rejection(logits, rejected, excess, inner)
    wanted = rejected | (torch.arange(8) == 7 if inner else torch.zeros(8, dtype=torch.bool))
    assert answer.shape == (8, 5 if inner else 6)
    assert torch.equal(answer.argmax(1) == answer.shape[1] - 1, wanted)
    kept = answer[:, :-1]
    assert torch.equal(kept, logits[:, : kept.shape[1]])
    assert ((answer[:, -1] < kept.amax(1)) | wanted).all()


def test_the_gradient_of_a_rejection_does_not_vanish_far_from_the_threshold() -> None:
    with_rejection = plugin_module("defenses._rejection").with_rejection
    excess = torch.tensor([-50.0, -1.0, 1.0, 50.0], requires_grad=True)
    logits = with_rejection(torch.eye(4), excess > 0, excess, False)
    goal = Goal(torch.zeros(4, dtype=torch.int64), rejects=True)
    (gradient,) = torch.autograd.grad(goal.cross_entropy(logits).sum(), excess)
    assert (gradient > 1e-6).all()


@pytest.mark.parametrize(("rate", "count"), [(0.05, 100), (0.05, 37), (0.2, 10), (0.5, 3)])
def test_the_threshold_gives_the_stated_false_positive_rate(rate: float, count: int) -> None:
    calibrate = plugin_module("defenses._rejection").calibrate
    scores = torch.rand(count, generator=torch.Generator().manual_seed(0))
    learned = calibrate(scores, rate)
    share = (scores > learned["threshold"]).double().mean()
    assert rate - 1 / count < share <= rate
    assert learned["spread"] > 0


def test_squeezing_rejects_an_image_that_depends_on_one_pixel() -> None:
    defense = make_defense("squeeze:search=0,calibration_images=60")
    images, labels = coloured(60)
    model = Lamps()
    defended = defense.protect(model, defense.learn(model, ToyExamples(images, labels), streams(60)))
    clean, labels = coloured(20, seed=8)
    attacked = patched(clean, side=2)
    attacked[:, :, 6, :] = clean[:, :, 6, :]
    attacked[:, :, :, 7] = clean[:, :, :, 7]
    turned = model(attacked, streams(20)).argmax(1) != labels
    assert turned.any()
    assert (defended(attacked, streams(20)).argmax(1)[turned] == 4).all()


def test_non_local_means_agrees_with_opencv_within_a_level() -> None:
    from skimage import data

    non_local_means = plugin_module("defenses.squeeze").non_local_means
    grey = data.camera()[200:264, 200:264]
    theirs = cv2.fastNlMeansDenoising(np.ascontiguousarray(grey), None, 12.0, 3, 13)
    images = torch.from_numpy(grey).float()[None, None] / 255
    ours = non_local_means(images, 13, 3, 12 / 255)[0, 0] * 255
    difference = np.abs(ours.round().numpy() - theirs.astype(float))
    assert np.abs(theirs.astype(float) - grey).max() > 10
    assert difference[8:-8, 8:-8].max() <= 1


def test_non_local_means_keeps_a_constant_image_and_a_single_pixel() -> None:
    non_local_means = plugin_module("defenses.squeeze").non_local_means
    for shape in ((1, 3, 7, 5), (1, 1, 1, 1)):
        constant = torch.full(shape, 0.3)
        torch.testing.assert_close(non_local_means(constant, 13, 3, 0.1), constant)


def test_sentinet_rejects_a_patch_that_decides_everywhere() -> None:
    defense = make_defense("sentinet:overlays=20,calibration_images=100,salient=0.5")
    images, labels = coloured(120)
    model = Lamps()
    defended = defense.protect(model, defense.learn(model, ToyExamples(images, labels), streams(120)))
    attacked = patched(coloured(20, seed=8)[0])
    assert (model(attacked, streams(20)).argmax(1) == 3).all()
    assert (defended(attacked, streams(20)).argmax(1) == 4).all()


def test_who_attacks_sentinet_with_all_overlays_counts_as_it_does() -> None:
    defense = make_defense("sentinet:overlays=8,seen=8,calibration_images=40,salient=0.5")
    images, _ = coloured(60)
    model = Lamps()
    learned = defense.learn(model, ToyExamples(images, torch.zeros(60, dtype=torch.int64)), streams(60))
    tried = torch.cat([coloured(6, seed=8)[0], patched(coloured(6, seed=8)[0])])
    watched = tried.clone().requires_grad_()
    joint = defense.attacker_views(model, learned)["joint"](watched, streams(12))
    assert torch.equal(joint, defense.protect(model, learned)(tried, streams(12)))
    (gradient,) = torch.autograd.grad(joint[:, -1].sum() - joint[:, :-1].amax(1).sum(), watched)
    assert (gradient != 0).any()


THRESHOLD = {"threshold": torch.tensor(1.0), "spread": torch.tensor(1.0)}


def test_who_attacks_sentinet_with_few_overlays_also_sees_its_true_answer() -> None:
    defense = make_defense("sentinet:overlays=8,seen=1,calibration_images=40,salient=0.5")
    model, images = Lamps(), patched(coloured(6, seed=8)[0])
    learned = defense.learn(model, ToyExamples(coloured(60)[0], torch.zeros(60, dtype=torch.int64)), streams(60))
    watched = images.clone().requires_grad_()
    views = defense.attacker_views(model, learned)
    joint, logits = views["joint"](watched, streams(6)), views["defended"](watched, streams(6))
    assert torch.equal(logits, defense.protect(model, learned)(images, streams(6)))
    followed, wanted = (torch.autograd.grad(each[:, -1].sum(), watched)[0] for each in (logits, joint))
    torch.testing.assert_close(followed, wanted)
    assert wanted.any()


def test_squeezed_versions_that_agree_are_turned_together() -> None:
    images = (torch.arange(256).reshape(1, 1, 16, 16).expand(2, 3, 16, 16) / 255).requires_grad_()
    view = make_defense("squeeze:search=0,median=0,bits=8").attacker_views(Lamps(), THRESHOLD)["agreement"]
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    (followed,) = torch.autograd.grad((view(images, streams(2))[:, :4] * weights).sum(), images)
    (wanted,) = torch.autograd.grad((Lamps()(images, streams(2)).log_softmax(1) * weights).sum(), images)
    torch.testing.assert_close(followed, wanted)


def test_versions_that_are_sure_of_different_classes_still_show_the_attacker_a_way() -> None:
    class Sure(Classifier):
        num_classes = 2

        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            mean = images.mean((1, 2, 3)) - 0.5
            return torch.stack([-mean, mean], 1) * 2000

    defense = make_defense("squeeze:search=0,median=0,bits=1")
    images = torch.full((1, 1, 10, 10), 0.49)
    images[..., :4] = 0.9  # bright, but dark once its values are rounded to black and white
    watched, goal = images.requires_grad_(), Goal(torch.tensor([0]), rejects=True)
    gradients = {}
    for name, view in defense.attacker_views(Sure(), THRESHOLD).items():
        logits = view(watched, streams(1))
        if name != "bare":
            assert torch.equal(logits, defense.protect(Sure(), THRESHOLD)(images, streams(1)))
            (gradients[name],) = torch.autograd.grad(goal.margin(logits).sum(), watched)
    assert not gradients["defended"].any()
    assert (gradients["agreement"] < 0).all(), "brighter, so that the rounded image is bright too"


def test_grad_cam_of_a_network_with_global_means_is_its_class_activation_map() -> None:
    grad_cam = plugin_module("defenses.sentinet").grad_cam
    model = Lamps()
    images = patched(coloured(6)[0])
    logits, saliency = grad_cam(model, images, streams(6))
    features = model.lit(model.features(images))
    expected = features[torch.arange(6), logits.argmax(1)][:, None] / (16 * 16)
    torch.testing.assert_close(saliency, expected)


def test_the_parabola_through_the_highest_points_is_found() -> None:
    sentinet = plugin_module("defenses.sentinet")
    across = torch.arange(50).repeat(4) / 50
    heights = 0.2 + 0.5 * across - 0.3 * across**2
    below = torch.cat([torch.zeros(100), torch.full((50,), 0.1), torch.full((50,), 0.4)])
    curve = sentinet.upper_parabola(across.double(), (heights - below).double())
    torch.testing.assert_close(curve, torch.tensor([0.2, 0.5, -0.3]).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(sentinet.parabola(curve, across.double()), heights.double(), atol=1e-4, rtol=0)


def test_jujutsu_answers_what_stands_behind_the_patch() -> None:
    defense = make_defense("jujutsu:samples=8,holdouts=20")
    images, labels = coloured(60)
    model = Lamps()
    defended = defense.protect(model, defense.learn(model, ToyExamples(images, labels), streams(60)))
    clean, labels = coloured(20, seed=8)
    attacked = patched(clean)
    assert (model(attacked, streams(20)).argmax(1) == 3).all()
    assert (defended(attacked, streams(20)).argmax(1) == labels).double().mean() >= 0.9
    assert not defended.rejects


def test_the_saliency_of_a_linear_model_is_its_largest_weight() -> None:
    smooth_grad = plugin_module("defenses.jujutsu").smooth_grad
    weights = torch.randn(3, 2, 6, 5, generator=torch.Generator().manual_seed(0))

    class Linear(Classifier):
        num_classes = 3

        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            return torch.einsum("nchw,kchw->nk", images, weights)

    classes = torch.tensor([2, 0])
    saliency = smooth_grad(Linear(), torch.rand(2, 2, 6, 5), classes, streams(2), 5, 0.1)
    torch.testing.assert_close(saliency, weights[classes].abs().amax(1, keepdim=True))


def test_a_transplant_moves_the_square_and_nothing_else() -> None:
    transplant = plugin_module("defenses.jujutsu").transplant
    generator = torch.Generator().manual_seed(0)
    images, holdouts = torch.rand(3, 3, 9, 11, generator=generator), torch.rand(3, 3, 9, 11, generator=generator)
    corners, places = torch.tensor([[0, 0], [5, 7], [2, 3]]), torch.tensor([[5, 7], [0, 0], [2, 3]])
    moved = transplant(images, corners, holdouts, places, 4)
    for number in range(3):
        (top, left), (row, column) = corners[number].tolist(), places[number].tolist()
        expected = holdouts[number].clone()
        expected[:, row : row + 4, column : column + 4] = images[number, :, top : top + 4, left : left + 4]
        assert torch.equal(moved[number], expected)


def test_filling_in_forgets_what_stood_under_the_mask_and_keeps_the_rest() -> None:
    inpaint = plugin_module("defenses._inpaint").inpaint
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 12, 10, generator=generator)
    masks = torch.zeros(3, 1, 12, 10, dtype=torch.bool)
    masks[0, :, 2:6, 3:8] = True
    masks[2] = True
    refilled = torch.where(masks, torch.rand(images.shape, generator=generator), images)
    filled = inpaint(images, masks)
    assert torch.equal(filled, inpaint(refilled, masks))
    assert torch.equal(filled.masked_select(~masks), images.masked_select(~masks))
    assert (filled >= 0).all()
    assert (filled <= 1).all()
    constant = torch.full((3, 3, 12, 10), 0.3)
    torch.testing.assert_close(inpaint(constant, masks)[:2], constant[:2])
    watched = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(inpaint(watched, masks).sum(), watched)
    assert torch.equal(gradient, (~masks).float().expand_as(gradient))


def test_annnet_learns_to_see_single_pixels_and_reports_how_well() -> None:
    defense = make_defense("annnet:training_images=200,tries=6,epochs=20")
    images, labels = coloured(160)
    model = Lamps()
    before = torch.get_rng_state()
    learned = defense.learn(model, ToyExamples(images, labels), streams(160))
    assert torch.equal(torch.get_rng_state(), before)
    assert learned["auc"] > 0.9
    assert learned["auc_by_count"][:, 0].tolist() == [1, 3, 5, 2, 8]
    assert learned["roc"][0].tolist() == [0, 0]
    assert learned["roc"][-1].tolist() == [1, 1]
    defended = defense.protect(Lamps(), learned)
    attacked = coloured(20, seed=8)[0]
    attacked[:, :, 4, 9] = 1
    attacked[:, :, 11, 3] = 0
    attacked[:, :, 8, 8] = torch.tensor([1.0, 0.0, 1.0])
    assert (defended(attacked, streams(20)).argmax(1) == 4).double().mean() >= 0.7


def test_chance_has_half_of_the_area_under_the_curve_and_certainty_has_all() -> None:
    annnet = plugin_module("defenses.annnet")
    roc, area_under = annnet.roc, annnet.area_under
    generator = torch.Generator().manual_seed(0)
    one, other = torch.rand(4000, generator=generator), torch.rand(4000, generator=generator)
    assert area_under(roc(one, other)) == pytest.approx(0.5, abs=0.02)
    assert area_under(roc(one, other + 1)) == pytest.approx(1)
    assert area_under(roc(torch.zeros(5), torch.zeros(7))) == pytest.approx(0.5)


def test_the_pixel_search_keeps_its_counts_and_lowers_the_margin() -> None:
    search_pixels = plugin_module("defenses.annnet").search_pixels
    images, labels = coloured(30)
    counts = torch.tensor([1, 3, 5]).repeat(10)
    first = search_pixels(Lamps(), images, counts, streams(30), 1)
    last = search_pixels(Lamps(), images, counts, streams(30), 25)
    changed = (last != images).any(1)
    assert (changed.sum((1, 2)) <= counts).all()
    assert set(last.masked_select(changed[:, None]).unique().tolist()) <= {0.0, 1.0}
    goal = Goal(labels)
    before, after = (goal.margin(Lamps()(part, streams(30))) for part in (first, last))
    assert (after <= before).all()
    assert after.mean() < before.mean() - 0.1


@pytest.mark.parametrize("text", ["sentinet:overlays=8,calibration_images=40,seen=3", "jujutsu:holdouts=12,seen=3"])
def test_the_mask_of_a_detector_covers_the_patch(text: str) -> None:
    defense = make_defense(text)
    images, labels = coloured(60)
    learned = defense.learn(Lamps(), ToyExamples(images, labels), streams(60))
    clean = coloured(5, seed=3)[0]
    attacked = patched(clean)
    mask = defense.mask(Lamps(), learned, attacked, streams(5))
    assert mask is not None
    assert mask[(attacked != clean).any(1)].float().mean() > 0.9


@pytest.mark.parametrize("way", ["guided", "smoothgrad", "occlusion"])
def test_jujutsu_finds_the_patch_by_every_saliency(way: str) -> None:
    defense = make_defense(f"jujutsu:saliency={way},samples=4,holdouts=12,seen=3")
    images, labels = coloured(40)
    learned = defense.learn(Lamps(), ToyExamples(images, labels), streams(40))
    attacked = patched(coloured(6, seed=3)[0])
    defended = defense.protect(Lamps(), learned)
    assert (Lamps()(attacked, streams(6)).argmax(1) == 3).all()
    assert (defended(attacked, streams(6)).argmax(1) != 3).float().mean() > 0.5
