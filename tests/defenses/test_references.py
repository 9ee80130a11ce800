"""Transforms agree with the libraries and the definitions that they stand for."""

from io import BytesIO

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from skimage import data
from skimage.restoration import denoise_tv_chambolle

from bench.contracts import Streams, Transform
from bench.plugins.registry import InputError, make_defense

from ..toys import plugin_module

LEVEL = 1 / 255
NONE = Streams.of(0, torch.arange(0))


def clean(text: str, images: torch.Tensor) -> torch.Tensor:
    defense = make_defense(text)
    assert isinstance(defense, Transform)
    return defense.clean(images, Streams.of(0, torch.arange(len(images))))


def photograph(size: int = 64, count: int = 2) -> torch.Tensor:
    photo = torch.from_numpy(data.chelsea()).permute(2, 0, 1).float() / 255
    return torch.stack([photo[:, 40 + 9 * i : 40 + 9 * i + size, 80 : 80 + size] for i in range(count)])


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


# JPEG


@pytest.mark.parametrize("quality", [5, 30, 75, 95])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 3, 37, 50), (2, 1, 28, 28)])
def test_jpeg_gives_pillows_pixels(quality: int, shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    wanted = []
    for levels in (images * 255).round().byte().permute(0, 2, 3, 1).numpy():
        coded = BytesIO()
        Image.fromarray(levels.squeeze()).save(coded, "JPEG", quality=quality)
        wanted.append(np.asarray(Image.open(coded)).reshape(levels.shape))
    expected = torch.from_numpy(np.stack(wanted)).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(clean(f"jpeg:quality={quality}", images), expected)


def test_jpeg_errs_less_the_higher_its_quality() -> None:
    images = photograph()
    errors = [float((clean(f"jpeg:quality={q}", images) - images).abs().mean()) for q in (10, 30, 50, 75, 95)]
    assert errors == sorted(errors, reverse=True)


def test_jpeg_keeps_mid_grey() -> None:
    grey = torch.full((1, 3, 32, 32), 128 / 255)
    assert torch.equal(clean("jpeg", grey), grey)


@pytest.mark.parametrize("quality", [30, 75])
def test_the_attackers_jpeg_is_near_the_codecs(quality: int) -> None:
    soft_jpeg = plugin_module("defenses._soft_jpeg").soft_jpeg
    for images in (photograph(61), photograph()[:, :1]):
        gap = (soft_jpeg(images, quality) - clean(f"jpeg:quality={quality}", images)).abs().mean()
        assert gap < 3 * LEVEL


def test_jpegs_gradient_vanishes_where_every_coefficient_sits_on_a_level() -> None:
    flat = torch.full((1, 1, 8, 8), 128 / 255)
    defense = make_defense("jpeg:quality=30")
    assert isinstance(defense, Transform)
    wave = torch.cos(torch.arange(8) * 7 * torch.pi / 8).expand(1, 1, 8, 8)
    assert defense.backward(flat, wave).abs().max() < 1e-6
    assert defense.backward(photograph(), noise(2, 3, 64, 64)).abs().max() > 0.1


# Filters


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 17, 9), (1, 3, 2, 3), (1, 3, 1, 1)])
def test_median_equals_scipy_to_the_bit(size: int, shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    expected = ndimage.median_filter(images.numpy(), size=(1, 1, size, size), mode="reflect")
    assert torch.equal(clean(f"median:size={size}", images), torch.from_numpy(expected))
    assert torch.equal(clean(f"median:size={size}", images.double()).float(), torch.from_numpy(expected))


def test_median_kills_an_isolated_pixel_and_keeps_edges() -> None:
    images = torch.full((1, 3, 16, 16), 0.3)
    images[..., 8:] = 0.8
    spoilt = images.clone()
    spoilt[0, :, 5, 3] = 1
    assert torch.equal(clean("median", spoilt), images)
    assert torch.equal(clean("median", images), images)


@pytest.mark.parametrize("shape", [(2, 3, 32, 40), (1, 1, 3, 2), (1, 3, 1, 1)])
def test_gaussian_equals_scipy(shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    blurred = ndimage.gaussian_filter(images.double().numpy(), (0, 0, 1, 1), mode="reflect", radius=(0, 0, 2, 2))
    torch.testing.assert_close(clean("gaussian", images).double(), torch.from_numpy(blurred), rtol=0, atol=1e-6)


def test_gaussian_keeps_constants() -> None:
    images = torch.full((1, 3, 9, 9), 0.7)
    assert (clean("gaussian", images) - images).abs().max() < 1e-6


def bilateral_by_hand(image: np.ndarray, size: int, space: float, colour: float) -> np.ndarray:
    reach = size // 2
    channels, height, width = image.shape
    padded = np.pad(image, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            total, weights = np.zeros(channels), 0.0
            for i in range(-reach, reach + 1):
                for j in range(-reach, reach + 1):
                    if i * i + j * j <= reach * reach:
                        other = padded[:, row + reach + i, column + reach + j]
                        distance = np.abs(other - image[:, row, column]).mean()
                        weight = np.exp(-(i * i + j * j) / (2 * space**2) - distance**2 / (2 * colour**2))
                        total += weight * other
                        weights += weight
            out[:, row, column] = total / weights
    return out


@pytest.mark.parametrize("text", ["bilateral", "bilateral:size=7,space=2,colour=0.1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_bilateral_equals_its_formula_by_hand(text: str, channels: int) -> None:
    images = photograph(20, 1)[:, :channels]
    size, space, colour = (7, 2.0, 0.1) if "7" in text else (5, 1.0, float(images.numpy().std()))
    expected = bilateral_by_hand(images[0].double().numpy(), size, space, colour)
    for kind in (torch.float32, torch.float64):
        gap = np.abs(clean(text, images.to(kind))[0].double().numpy() - expected).max()
        assert gap < 0.1 * LEVEL


def test_bilateral_without_colour_is_a_gaussian_on_a_disc() -> None:
    images = noise(1, 3, 24, 24)
    places = np.arange(-2, 3)
    squares = places[:, None] ** 2 + places**2
    kernel = np.exp(-squares / 2) * (squares <= 4)
    expected = ndimage.convolve(images.double().numpy(), (kernel / kernel.sum())[None, None], mode="reflect")
    assert np.abs(clean("bilateral:colour=1000", images).double().numpy() - expected).max() < 0.1 * LEVEL


def test_bilateral_equals_opencv_for_grey_images() -> None:
    images = photograph()[:, :1]
    expected = cv2.bilateralFilter(images[0, 0].numpy(), 5, 0.2, 1.0, borderType=cv2.BORDER_REFLECT)
    assert np.abs(clean("bilateral:colour=0.2", images)[0, 0].numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("depth", range(1, 9))
def test_bit_depth_has_exactly_its_levels_and_is_idempotent(depth: int) -> None:
    images = torch.linspace(0, 1, 4096).reshape(1, 1, 64, 64)
    reduced = clean(f"bit-depth:depth={depth}", images)
    assert len(reduced.unique()) == 2**depth
    assert reduced.min() == 0
    assert reduced.max() == 1
    assert torch.equal(clean(f"bit-depth:depth={depth}", reduced), reduced)


def test_eight_bits_keep_eight_bit_images() -> None:
    images = torch.arange(256).reshape(1, 1, 16, 16).float() / 255
    assert torch.equal(clean("bit-depth:depth=8", images), images)


# Total variation


def energy(images: torch.Tensor, data_: torch.Tensor, weight: float, kept: torch.Tensor | float = 1.0) -> float:
    across = torch.nn.functional.pad(images.diff(dim=3), (0, 1))
    down = torch.nn.functional.pad(images.diff(dim=2), (0, 0, 0, 1))
    return float((across.square() + down.square()).sqrt().sum() + weight / 2 * (kept * (images - data_).square()).sum())


@pytest.mark.parametrize("weight", [10, 30])
def test_tvm_reaches_scikit_images_minimum(weight: int) -> None:
    images = photograph(48, 1)
    limit = torch.from_numpy(
        denoise_tv_chambolle(images[0].double().numpy(), 1 / weight, eps=1e-12, max_num_iter=3000, channel_axis=0)
    )
    near = clean(f"tvm:weight={weight},steps=500", images)[0]
    assert (near - limit).abs().max() < 0.5 * LEVEL
    usual = torch.from_numpy(denoise_tv_chambolle(images[0].numpy(), 1 / weight, channel_axis=0))
    quick = clean(f"tvm:weight={weight}", images)[0]
    gap = (quick - limit).abs().mean()
    assert gap < 1.5 * LEVEL
    assert gap < (usual - limit).abs().mean(), "scikit-image stops nearer to the limit"


@pytest.mark.parametrize("weight", [1, 10, 100])
def test_tvm_lowers_the_energy(weight: int) -> None:
    images = photograph(32)
    assert energy(clean(f"tvm:weight={weight}", images), images, weight) < energy(images, images, weight)


def test_tvm_with_all_weight_on_the_image_changes_nothing() -> None:
    images = photograph(32)
    assert (clean("tvm:weight=100000", images) - images).abs().max() < 1e-4


@pytest.mark.parametrize("text", ["tvm", "tvm-guo"])
def test_tvm_keeps_constants(text: str) -> None:
    images = torch.full((2, 3, 16, 16), 0.3)
    assert (clean(text, images) - images).abs().max() < 1e-5


def test_tvm_without_dropout_is_the_same_by_both_names() -> None:
    images = photograph(32)
    plain, guo = clean("tvm:steps=1000", images), clean("tvm-guo:dropout=0,weight=10,steps=4000", images)
    assert (plain - guo).abs().max() < 0.5 * LEVEL


def test_tvm_with_dropped_values_lowers_the_energy_to_near_its_limit() -> None:
    images = photograph(32)
    defense = make_defense("tvm-guo")
    kept = defense._kept(images, Streams.of(0, torch.arange(2)))  # type: ignore[attr-defined]
    assert 0.45 < kept.mean() < 0.55
    found = [clean(f"tvm-guo:steps={steps}", images) for steps in (100, 3000)]
    energies = [energy(one, images, 1 / 0.03, kept) for one in found]
    assert energies[1] <= energies[0] < 1.06 * energies[1]
    assert (found[0] - found[1]).abs().mean() < 2 * LEVEL


def test_tvm_guo_does_not_depend_on_dropped_values() -> None:
    images = photograph(32)
    kept = make_defense("tvm-guo")._kept(images, Streams.of(0, torch.arange(2)))  # type: ignore[attr-defined]
    refilled = torch.where(kept.bool(), images, noise(*images.shape))
    assert torch.equal(clean("tvm-guo", refilled), clean("tvm-guo", images))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("median:size=0", "window size"),
        ("gaussian:size=4", "odd"),
        ("bilateral:size=4", "odd"),
        ("bilateral:colour=0", "colour"),
        ("bit-depth:depth=9", "depth"),
        ("jpeg:quality=0", "quality"),
        ("jpeg:quality=nan", "quality"),
        ("tvm:weight=0", "weight"),
        ("tvm-guo:dropout=1", "dropout"),
        ("lgs:threshold=-1", "threshold"),
        ("lgs:smoothing=nan", "smoothing"),
        ("n-pixel:threshold=2", "threshold"),
        ("apg:sparsity=0", "sparsity"),
        ("dw:quantile=1", "quantile"),
        ("dw:saliency=magic", "saliency"),
        ("jedi:smallest=2", "smallest"),
        ("psd:window=3", "window"),
        ("psd:noise=0.9", "noise"),
    ],
)
def test_a_parameter_out_of_range_is_refused(text: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        make_defense(text)
