"""What holds for every defense that cleans images, from its contract."""

from dataclasses import replace

import pytest
import torch

from bench.contracts import Classifier, Streams, Transform
from bench.plugins.registry import make_defense

from ..toys import plugin_module, streams

NAMES = ["apg", "bilateral", "bit-depth", "gaussian", "jedi", "jpeg", "lgs", "median", "n-pixel", "tvm", "tvm-guo"]


class Pixels(Classifier):
    """Gives the pixels themselves as logits, so that the images behind a defense can be seen."""

    num_classes = 0

    def forward(self, images: torch.Tensor, rng: Streams) -> torch.Tensor:
        return images.flatten(1)


def photographs(count: int = 6, size: int = 32, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Crops of a real photograph with a patch of noise in each, seeded."""
    from skimage import data

    photo = torch.from_numpy(data.astronaut()).permute(2, 0, 1).double() / 255
    generator = torch.Generator().manual_seed(1)
    corners = torch.randint(0, 512 - size, (count, 2), generator=generator).tolist()
    crops = torch.stack([photo[:, row : row + size, column : column + size] for row, column in corners])
    crops[:, :, 3:9, 4:10] = torch.rand(count, 3, 6, 6, generator=generator, dtype=torch.float64)
    return crops.to(dtype)


def views(defense: Transform) -> dict[str, Classifier]:
    return defense.attacker_views(Pixels(), {})


@pytest.fixture(params=NAMES)
def defense(request: pytest.FixtureRequest) -> Transform:
    made = make_defense(request.param)
    assert isinstance(made, Transform)
    return made


@pytest.mark.parametrize(
    "shape", [(3, 3, 32, 32), (1, 3, 32, 32), (2, 1, 28, 28), (2, 3, 17, 40), (1, 3, 1, 1), (0, 3, 32, 32)]
)
def test_a_transform_keeps_shape_type_and_range(defense: Transform, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    cleaned = defense.clean(images, streams(len(images)))
    assert cleaned.shape == images.shape
    assert cleaned.dtype == images.dtype
    assert cleaned.isfinite().all()
    assert (cleaned >= 0).all()
    assert (cleaned <= 1).all()
    assert torch.equal(images, before), "the input was changed"


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_images_of_one_level_come_out_finite_and_in_range(defense: Transform, level: float) -> None:
    cleaned = defense.clean(torch.full((2, 3, 32, 32), level), streams(2))
    assert cleaned.isfinite().all()
    assert (cleaned >= 0).all()
    assert (cleaned <= 1).all()


def test_each_image_is_cleaned_by_itself(defense: Transform) -> None:
    images = photographs(7)
    together = defense.clean(images, streams(7))
    parts = [defense.clean(images[rows], streams(7)[rows]) for rows in (slice(0, 1), slice(1, 4), slice(4, 7))]
    assert torch.equal(together, torch.cat(parts))


def test_two_threads_and_large_images_do_not_mix_images_either(defense: Transform) -> None:
    if defense.title in ("APG", "TVM (Guo)"):
        pytest.skip("takes seconds at this size")
    images = photographs(3, 224)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        together = defense.clean(images, streams(3))
        alone = defense.clean(images[1:2], streams(3)[1:2])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together[1:2], alone)


def test_the_same_streams_give_the_same_images(defense: Transform) -> None:
    images = photographs()
    assert torch.equal(defense.clean(images, streams(6)), defense.clean(images, streams(6)))


def test_only_random_transforms_depend_on_the_streams(defense: Transform) -> None:
    images = photographs()
    same = torch.equal(defense.clean(images, streams(6)), defense.clean(images, streams(6, seed=1)))
    assert same == (not defense.random)


def test_double_precision_gives_nearly_the_same_images(defense: Transform) -> None:
    images = photographs()
    single = defense.clean(images, streams(6))
    double = defense.clean(images.double(), streams(6))
    assert double.dtype == torch.float64
    assert (single - double).abs().quantile(0.99) < 1e-4


def test_the_differentiable_way_gives_the_same_images(defense: Transform) -> None:
    images = photographs()
    fast = defense.clean(images, streams(6))
    slow = defense.differentiable(images.clone().requires_grad_(), streams(6))
    assert (fast - slow.detach()).abs().max() < 1e-5


def test_every_view_has_a_finite_gradient_that_is_not_zero(defense: Transform) -> None:
    images = photographs()
    images[0, :, 16:] = 0.25
    images[1] = 0.5
    weights = torch.rand(6, 3 * 32 * 32, generator=torch.Generator().manual_seed(0))
    for name, view in views(defense).items():
        watched = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((view(watched, streams(6)) * weights).sum(), watched)
        assert gradient.isfinite().all(), name
        assert (gradient != 0).flatten(1).any(1).all(), name


def test_every_view_shows_the_images_that_the_model_sees(defense: Transform) -> None:
    images = photographs()
    seen = defense.protect(Pixels(), {})(images, streams(6))
    for name, view in views(defense).items():
        shown = view(images.clone().requires_grad_(), streams(6)).detach()
        assert torch.equal(shown, seen) or (name != "bpda" and (shown - seen).abs().max() < 1e-5), name


def test_bpda_passes_the_gradient_by_what_has_no_slope_of_its_own(defense: Transform) -> None:
    if "bpda" not in defense.views or type(defense).backward is not Transform.backward:
        pytest.skip("has no view that takes the identity")
    weights = torch.rand(6, 3 * 32 * 32, generator=torch.Generator().manual_seed(0))
    watched = photographs().requires_grad_()
    (gradient,) = torch.autograd.grad((views(defense)["bpda"](watched, streams(6)) * weights).sum(), watched)
    assert torch.equal(gradient.flatten(1), weights)


def test_the_exact_view_has_the_slope_of_finite_differences(defense: Transform) -> None:
    if "exact" not in defense.views:
        pytest.skip("has no exact gradient")
    if hasattr(defense, "smoothing"):
        defense = replace(defense, smoothing=1.0)  # never clipped, so there is nothing to pass straight through
    generator = torch.Generator().manual_seed(2)
    images = photographs(4, dtype=torch.float64)
    images += 1e-3 * torch.rand(images.shape, generator=generator, dtype=torch.float64)  # no two values are equal
    images = images / images.max()
    direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    weights = torch.randn(4, 3 * 32 * 32, generator=generator, dtype=torch.float64)
    view = views(defense)["exact"]
    watched = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((view(watched, streams(4)) * weights).sum(), watched)
    slope = (gradient * direction).flatten(1).sum(1)
    step = 1e-10
    ends = [(view(images + sign * step * direction, streams(4)) * weights).sum(1) for sign in (1, -1)]
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * step), rtol=2e-3, atol=2e-2)


def test_nan_is_refused_or_stays_and_harms_no_other_image(defense: Transform) -> None:
    images = photographs()
    clean = defense.clean(images, streams(6))
    images[2, 1, 5, 5] = torch.nan
    refusal = ""
    try:
        broken = defense.clean(images, streams(6))
    except ValueError as error:
        refusal, broken = str(error), torch.full_like(images, torch.nan)
    if refusal:
        assert "NaN" in refusal
        return
    assert broken[2].isnan().any()
    assert torch.equal(broken[:2], clean[:2])
    assert torch.equal(broken[3:], clean[3:])


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", ["gaussian", "psd", "autoencoder"])
def test_black_and_white_pixels_have_a_gradient(name: str, value: float) -> None:
    images = torch.full((2, 3, 32, 32), value)
    learned = {}
    if name != "gaussian":
        made = plugin_module(f"defenses.{name}")
        net = made.Denoiser(3, 32, 5) if name == "psd" else made.Repairer(3)
        learned = {f"net.{key}": tensor for key, tensor in net.state_dict().items()}
    for view in make_defense(name).attacker_views(Pixels(), learned).values():
        watched = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(view(watched, streams(2)).sum(), watched)
        assert (gradient != 0).float().mean() > 0.99


@pytest.mark.parametrize("name", ["tvm:steps=300", "tvm-guo:steps=600"])
def test_the_jacobian_of_total_variation_follows_smooth_changes_of_the_image(name: str) -> None:
    images = photographs(1, 16, torch.float64)
    view = views(make_defense(name))["jacobian"]  # type: ignore[arg-type]  # a transform
    generator = torch.Generator().manual_seed(3)
    coarse = torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64)
    weights = torch.nn.functional.interpolate(coarse, (16, 16))
    watched = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((view(watched, streams(1)) * weights.flatten(1)).sum(), watched)
    told, seen = [], []
    for _ in range(6):
        coarse = torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64)
        direction = torch.nn.functional.interpolate(coarse, (16, 16), mode="bilinear")
        step = 1e-3 * direction
        change = view(images + step, streams(1)) - view(images - step, streams(1))
        seen.append(float((change * weights.flatten(1)).sum() / 2e-3))
        told.append(float((gradient * direction).sum()))
    assert float(torch.corrcoef(torch.tensor([told, seen]))[0, 1]) > 0.95
    assert 0.7 < float(torch.tensor(told).norm() / torch.tensor(seen).norm()) < 1.4


def test_five_pixels_of_a_window_that_the_attacker_of_the_median_is_shown_move_it() -> None:
    images = 0.5 + 0.02 * torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    watched = images.clone().requires_grad_()
    centre = views(make_defense("median"))["bpda"](watched, streams(1))[0, 12]
    (gradient,) = torch.autograd.grad(centre, watched)
    assert gradient.sum().isclose(torch.tensor(1.0))
    values, five = gradient.flatten().topk(5)
    assert (values > 0).all(), "only five of nine pixels can move their median"
    blackened = images.flatten().index_fill(0, five, 0.0).reshape(images.shape)
    assert make_defense("median").clean(blackened, streams(1))[0, 0, 2, 2] == 0


def test_the_attacker_of_n_pixel_is_shown_the_neighbours_that_let_a_pixel_survive() -> None:
    defense = make_defense("n-pixel")
    images = torch.full((1, 1, 7, 7), 0.5)
    watched = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(views(defense)["bpda"](watched, streams(1))[0, 24], watched)
    assert (gradient[..., 2:5, 2:5] > 0).all()
    alone, pair = images.clone(), images.clone()
    alone[..., 3, 3] = pair[..., 3, 3:5] = 1.0
    assert torch.equal(defense.clean(alone, streams(1)), images)
    assert torch.equal(defense.clean(pair, streams(1)), pair)
