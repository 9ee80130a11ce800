"""Transforms that look for attacked regions or pixels: LGS, DW, Jedi, PSD, N-pixel and APG."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bench.contracts import Classifier, InputError, NotApplicableError, Streams, Transform
from bench.plugins.registry import make_defense

from ..toys import ToyExamples, plugin_module, streams


class Corner(Classifier):
    """Class 1 where the middle of the image is bright; a network with ReLU modules and functions."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.relu = torch.nn.ReLU(inplace=True)

    def forward(self, images: torch.Tensor, rng: Streams) -> torch.Tensor:
        features = self.relu(images.mean(1) - 0.3) + F.relu(images.mean(1) - 0.6)
        height, width = images.shape[2:]
        middle = features[:, height // 4 : height // 2, width // 4 : width // 2].square().sum((1, 2))
        return torch.stack([torch.full_like(middle, 4.0), middle], 1)


class Pixels(Classifier):
    num_classes = 0

    def forward(self, images: torch.Tensor, rng: Streams) -> torch.Tensor:
        return images.flatten(1)


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def smooth(count: int = 8, size: int = 32) -> torch.Tensor:
    """Images of slow waves."""
    place = torch.linspace(0, 3, size)
    waves = torch.sin(place[None, :, None] + torch.arange(count)[:, None, None]) * torch.cos(place)[None, None]
    return (0.5 + 0.3 * waves)[:, None].repeat(1, 3, 1, 1) * torch.tensor([1.0, 0.9, 0.8])[:, None, None]


def patched(images: torch.Tensor, side: int, row: int, column: int) -> torch.Tensor:
    images = images.clone()
    images[:, :, row : row + side, column : column + side] = noise(len(images), images.shape[1], side, side)
    return images


def clean(text: str, images: torch.Tensor) -> torch.Tensor:
    defense = make_defense(text)
    assert isinstance(defense, Transform)
    return defense.clean(images, streams(len(images)))


# LGS


@pytest.mark.parametrize("text", ["lgs:smoothing=0", "lgs:threshold=1", "lgs:cifar,smoothing=0"])
def test_lgs_without_smoothing_or_with_threshold_one_changes_nothing(text: str) -> None:
    images = noise(2, 3, 40, 40)
    assert torch.equal(clean(text, images), images)


def test_lgs_never_brightens_and_keeps_pixels_outside_its_windows() -> None:
    images = patched(smooth(), 7, 15, 15)
    cleaned = clean("lgs", images)
    assert (cleaned <= images).all()
    assert (cleaned < images)[:, :, 16:21, 16:21].float().mean() > 0.8
    assert torch.equal(cleaned[:, :, 26:, 26:], images[:, :, 26:, 26:])


def test_lgs_scales_with_the_image() -> None:
    images = patched(smooth(), 7, 12, 14)
    assert torch.equal(clean("lgs", images * 0.5), clean("lgs", images) * 0.5)


@pytest.mark.parametrize("size", [32, 64, 224, 299])
def test_lgs_reaches_the_last_rows_and_columns(size: int) -> None:
    images = torch.full((1, 3, size, size), 0.5)
    images[:, :, -5:, -5:] = noise(1, 3, 5, 5)
    cleaned = clean("lgs:threshold=0.01", images)
    assert (cleaned[:, :, -4:, -4:] < images[:, :, -4:, -4:]).any()


def test_lgs_equals_its_formula_by_hand() -> None:
    image = noise(1, 3, 33, 30).double()
    cleaned = clean("lgs:window=6,overlap=2,threshold=0.35,smoothing=1.7", image)[0].numpy()
    x = image[0].numpy()
    grey = 0.299 * x[0] + 0.587 * x[1] + 0.114 * x[2]
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, :-1], down[:-1] = np.diff(grey, axis=1), np.diff(grey, axis=0)
    slope = np.sqrt(across**2 + down**2)
    slope = (slope - slope.min()) / (slope.max() - slope.min())
    mask = np.zeros_like(grey)
    for row in [*range(0, 28, 4), 27]:
        for column in [*range(0, 25, 4), 24]:
            if slope[row : row + 6, column : column + 6].mean() > 0.35:
                mask[row : row + 6, column : column + 6] = 1
    assert 0.05 < mask.mean() < 0.95
    np.testing.assert_allclose(cleaned, x * (1 - np.clip(1.7 * slope * mask, 0, 1)), atol=1e-12)


def test_lgs_passes_a_gradient_where_its_factor_is_clipped_to_black() -> None:
    images = noise(1, 3, 32, 32)
    defense = make_defense("lgs:threshold=0,smoothing=1000")
    view = defense.attacker_views(Pixels(), {})["exact"]
    watched = images.clone().requires_grad_()
    cleaned = view(watched, streams(1))
    assert (cleaned == 0).float().mean() > 0.9
    (gradient,) = torch.autograd.grad((cleaned * noise(1, 3072)).sum(), watched)
    assert (gradient != 0).float().mean() > 0.9


def test_lgs_refuses_windows_that_do_not_move_on() -> None:
    with pytest.raises(InputError, match="overlap"):
        make_defense("lgs:overlap=9").check((3, 32, 32), 10)


# Pixels


def planted(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One extreme pixel in each image, away from the border and at a corner, and where it is."""
    spoilt = images.clone()
    where = torch.zeros(len(images), 1, *images.shape[2:], dtype=torch.bool)
    for number in range(len(images)):
        row, column = (0, 0) if number == 0 else (4 + 3 * number, 29 - 3 * number)
        where[number, 0, row, column] = True
    spoilt = torch.where(where, torch.tensor([1.0, 0.0, 1.0])[:, None, None], spoilt)
    return spoilt, where


@pytest.mark.parametrize("text", ["n-pixel", "apg"])
def test_a_planted_pixel_is_restored_and_nothing_else_is_touched(text: str) -> None:
    images = smooth()
    spoilt, where = planted(images)
    cleaned = clean(text, spoilt)
    assert (cleaned - images).abs().amax() < 0.05
    assert torch.equal(cleaned.masked_fill(where, 0), images.masked_fill(where, 0))
    assert torch.equal(clean(text, images), images)


@pytest.mark.parametrize("size", [(20, 33), (33, 20), (1, 1), (7, 7)])
def test_apg_shrinks_singular_values_as_an_svd_does(size: tuple[int, int]) -> None:
    matrices = torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(0))
    matrices[0], matrices[1] = 0, matrices[1, :, :, :1]
    left, values, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    expected = (left * (values - 0.7).clamp_min(0)[..., None, :]) @ right
    shrink = plugin_module("defenses.apg")._shrink_singular_values
    torch.testing.assert_close(shrink(matrices, torch.full((4, 3, 1), 0.7)).double(), expected, rtol=0, atol=1e-5)


def test_n_pixel_is_idempotent_and_repairs_neighbouring_pixels() -> None:
    images = smooth()
    spoilt = images.clone()
    spoilt[:, :, 10, 10], spoilt[:, :, 10, 11] = 1.0, 0.99
    cleaned = clean("n-pixel:passes=5", spoilt)
    assert torch.equal(clean("n-pixel:passes=5", cleaned), cleaned)


@dataclass(frozen=True)
class RecordingExamples(ToyExamples):
    """Examples that record the reported progress."""

    shares: list[float] = field(default_factory=list)

    def progress(self, share: float) -> None:
        self.shares.append(share)


def training_of(images: torch.Tensor) -> RecordingExamples:
    """All images are of class 0."""
    return RecordingExamples(images, torch.zeros(len(images), dtype=torch.int64))


@pytest.fixture(scope="module")
def denoised() -> tuple[torch.nn.Module, torch.Tensor]:
    """PSD after a short training on smooth images, as a model that shows its pixels."""
    defense = make_defense("psd:depth=3,width=16,epochs=60,training_images=64")
    images = smooth(64)
    training = training_of(images)
    learned = defense.learn(Pixels(), training, streams(64))
    assert training.shares[-1] == 1
    assert training.shares == sorted(training.shares)
    short = make_defense("psd:depth=2,width=4,epochs=2")
    first, again = (short.learn(Pixels(), training_of(images), streams(64)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first), "training is not repeatable"
    return defense.protect(Pixels(), learned), images


def test_psd_restores_a_planted_pixel_and_leaves_clean_images_alone(
    denoised: tuple[Classifier, torch.Tensor],
) -> None:
    model, _ = denoised
    images = smooth()
    spoilt, where = planted(images)
    cleaned = model(spoilt, streams(8)).reshape(images.shape)
    moved = (cleaned - images).abs().amax(1)
    assert moved[where[:, 0]].median() < 0.3
    assert (model(images, streams(8)).reshape(images.shape) != images).float().mean() < 0.01


def test_psd_replaces_whole_patches_only(denoised: tuple[Classifier, torch.Tensor]) -> None:
    model, _ = denoised
    spoilt, where = planted(smooth())
    changed = (model(spoilt, streams(8)).reshape(spoilt.shape) != spoilt).any(1)
    near = F.max_pool2d(where.float(), 9, 1, 4)[:, 0] > 0
    assert not (changed & ~near).any()


def test_an_attacker_of_psd_may_leave_a_pixel_where_it_is_replaced_until_it_is_not() -> None:
    defense, (spoilt, _) = make_defense("psd"), planted(smooth())
    learned = defense.learn(Pixels(), training_of(smooth()), streams(8))
    cleaned = defense.protect(Pixels(), learned)(spoilt, streams(8))
    assert not torch.equal(cleaned, spoilt.flatten(1))
    watched, weights = spoilt.clone().requires_grad_(), noise(*spoilt.shape)
    view = defense.attacker_views(Pixels(), learned)["bpda"](watched, streams(8))
    assert torch.equal(view, cleaned)
    (gradient,) = torch.autograd.grad((view * weights.flatten(1)).sum(), watched)
    assert torch.equal(gradient, weights)


# DW


def test_dw_looks_away_from_what_the_answer_depends_on() -> None:
    images = torch.full((2, 3, 32, 32), 0.25)
    images[1, :, 9:15, 9:15] = 1
    model, rng = Corner(), streams(2)
    assert model(images, rng).argmax(1).tolist() == [0, 1]
    assert make_defense("dw").protect(model, {})(images, rng).argmax(1).tolist() == [0, 0]


@pytest.mark.parametrize("way", ["guided", "gradient", "smoothgrad"])
def test_dw_answers_as_the_bare_model_where_nothing_is_salient(way: str) -> None:
    images, rng = torch.full((3, 3, 32, 32), 0.1), streams(3)
    model = Corner()
    assert torch.equal(make_defense(f"dw:saliency={way}").protect(model, {})(images, rng), model(images, rng))


def test_dw_has_no_gradient_inside_its_mask_and_passes_one_by_it() -> None:
    images = torch.full((1, 3, 32, 32), 0.4)
    images[0, :, 9:15, 9:15] = 1
    for name, view in make_defense("dw").attacker_views(Corner(), {}).items():
        watched = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(view(watched, streams(1))[0, 1], watched)
        assert (gradient[0, :, 10:14, 10:14].abs().max() > 0) == (name == "bpda")


RECTIFIERS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    F.relu,
    torch.relu,
    torch.Tensor.relu,
    torch.nn.ReLU(),
    torch.nn.ReLU(inplace=True),
    F.relu6,
    torch.nn.ReLU6(),
    torch.nn.ReLU6(inplace=True),
    lambda row: F.hardtanh(row, 0.0, 6.0),
]


@pytest.mark.parametrize("rectify", RECTIFIERS)
def test_guided_backpropagation_lets_only_positive_gradients_back(
    rectify: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    saliency = plugin_module("defenses._saliency").saliency

    class Two(Classifier):
        num_classes = 1

        def forward(self, images: torch.Tensor, rng: Streams) -> torch.Tensor:
            return (rectify(images[:, 0, 0] * 1) * torch.tensor([1.0, -1.0])).sum(1)[:, None]

    images = torch.tensor([0.5, 0.5]).reshape(1, 1, 1, 2)
    plain, _ = saliency(Two(), images, streams(1), "gradient")
    guided, _ = saliency(Two(), images, streams(1), "guided")
    assert plain.flatten().tolist() == [1, 1]
    assert guided.flatten().tolist() == [1, 0]


def test_the_oracle_sees_nothing_of_what_was_attacked() -> None:
    images = smooth(2)
    rng = streams(2)
    model = make_defense("dw-oracle").protect(Pixels(), {})
    first, second = patched(images, 6, 5, 5), images.clone()
    second[:, :, 5:11, 5:11] = 1 - images[:, :, 5:11, 5:11]
    first[:, :, 5:11, 5:11] = 1 - first[:, :, 5:11, 5:11] * 0.01
    answers = [model(torch.cat([attacked, images], 1), rng) for attacked in (first, second)]
    assert torch.equal(*answers)
    outside = torch.ones(2, 3, 32, 32, dtype=torch.bool)
    outside[:, :, 5:11, 5:11] = False
    assert torch.equal(answers[0][outside.flatten(1)], images[outside])
    assert torch.equal(model(images, rng), images.flatten(1))
    assert not make_defense("dw-oracle").ranked
    with pytest.raises(NotApplicableError):
        make_defense("dw-oracle").check((2, 8, 8), 2)


# Jedi


def test_jedi_fills_a_noisy_patch_and_leaves_smooth_images_alone() -> None:
    images = smooth(2, 128)
    assert torch.equal(clean("jedi", images), images)
    attacked = patched(images, 32, 40, 56)
    cleaned = clean("jedi", attacked)
    inside = (slice(None), slice(None), slice(44, 68), slice(60, 84))
    assert (cleaned - images)[inside].abs().mean() < 0.3 * (attacked - images)[inside].abs().mean()
    assert torch.equal(cleaned[:, :, :16], images[:, :, :16])


def test_jedis_entropy_is_that_of_the_histogram() -> None:
    entropy = plugin_module("defenses.jedi")._entropy
    values = torch.randint(0, 256, (1, 1, 3, 81), generator=torch.Generator().manual_seed(0))
    values[0, 0, 1] = 7
    for row in range(3):
        counts = values[0, 0, row].bincount().double()
        shares = counts[counts > 0] / 81
        wanted = -(shares * shares.log2()).sum()
        assert abs(float(entropy(values)[0, 0, row] - wanted)) < 1e-5


def test_the_shipped_denoiser_restores_planted_pixels_of_real_photographs_and_leaves_clean_ones_alone() -> None:
    from bench.data.load import choose, load_dataset

    data = load_dataset("photos")
    chosen = choose(data.test, 60)
    images, rng = data.test.load(chosen), streams(60)
    defense = make_defense("psd")
    learned = defense.learn(Pixels(), training_of(images), rng)
    defended = defense.protect(Pixels(), learned)
    assert (defended.clean(images, rng) != images).any(1).float().mean() < 0.01
    generator = torch.Generator().manual_seed(0)
    rows, places = torch.arange(60), torch.randint(0, 32, (2, 60), generator=generator)
    attacked = images.clone()
    attacked[rows, :, places[0], places[1]] = torch.randint(0, 2, (60, 3), generator=generator).float()
    error = (defended.clean(attacked, rng) - images)[rows, :, places[0], places[1]].abs().amax(1)
    assert (error < 0.15).float().mean() > 0.85


@pytest.mark.parametrize("own", ["width=4", "denoiser=trained"])
def test_a_denoiser_of_another_shape_or_of_ones_own_is_trained(own: str) -> None:
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    training = training_of(images)
    shipped = make_defense("psd").learn(Pixels(), training, streams(8))
    trained = make_defense(f"psd:epochs=1,training_images=8,{own}").learn(Pixels(), training, streams(8))
    first = "net.layers.0.weight"
    assert trained[first].shape != shipped[first].shape or not torch.equal(trained[first], shipped[first])


# Localisation


@pytest.mark.parametrize(("text", "covered", "elsewhere"), [("dw", 0.9, 0.2), ("jedi", 0.8, 0.2), ("lgs", 0.8, 0.2)])
def test_a_mask_covers_the_patch_and_little_else(text: str, covered: float, elsewhere: float) -> None:
    images = torch.full((2, 3, 32, 32), 0.3) if text == "dw" else smooth(2, 96)
    side, row = (6, 9) if text == "dw" else (30, 33)
    attacked = patched(images, side, row, row)
    if text == "dw":
        attacked[:, :, row : row + side, row : row + side] = 1
    mask = make_defense(text).mask(Corner(), {}, attacked, streams(2))
    assert mask is not None
    changed = (attacked != images).any(1)
    assert mask[changed].float().mean() >= covered
    assert mask[~changed].float().mean() <= elsewhere


def test_the_hot_pixels_of_dw_follow_the_patch_it_is_built_against() -> None:
    place = torch.linspace(-1, 1, 32)
    saliency = 2 - (place[:, None].abs() + place.abs())[None]
    hot = [make_defense(f"dw:{text}").masks(saliency).float().mean() for text in ("area=0.3", "area=0.4")]
    assert hot[0] < hot[1]
    same = [make_defense(f"dw:{text}").masks(saliency) for text in ("area=0.3", "quantile=0.68")]
    assert torch.equal(*same)


def test_a_defense_that_locates_nothing_has_no_mask() -> None:
    assert make_defense("jpeg").mask(Corner(), {}, smooth(2), streams(2)) is None
