"""Pixels are those that a person sees, whatever the file's format; what cannot be seen is refused by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data.pixels import open_image
from bench.errors import InputError

RAMP = np.linspace(0, 1, 256).reshape(16, 16)
NOISE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


def seen(path: Path) -> np.ndarray:
    return np.asarray(open_image(path).convert("RGB")).astype(int)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_grey_with_16_bits_keeps_its_levels(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"ramp.{ending}"
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path)
    assert np.abs(seen(path)[:, :, 0] - RAMP * 255).max() <= 1


def test_floats_in_the_unit_range_are_scaled_and_others_refused(tmp_path: Path) -> None:
    path = tmp_path / "floats.tif"
    Image.fromarray(RAMP.astype(np.float32)).save(path)
    assert np.abs(seen(path)[:, :, 0] - RAMP * 255).max() <= 1
    for wrong in (RAMP * 255, RAMP - 0.5, np.where(RAMP > 0.5, np.nan, RAMP)):
        Image.fromarray(wrong.astype(np.float32)).save(path)
        with pytest.raises(InputError, match=r"floats\.tif.*not all in \[0, 1\]"):
            open_image(path)


def test_integers_of_unknown_range_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "counts.tif"
    Image.fromarray((RAMP * 1e6).astype(np.int32)).save(path)
    with pytest.raises(InputError, match=r"counts\.tif.*range is unknown"):
        open_image(path)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
def test_a_photograph_is_turned_as_its_orientation_says(ending: str, tmp_path: Path) -> None:
    image, path = (
        Image.fromarray(np.repeat([[[255] * 3], [[0] * 3]], 8, axis=0).repeat(16, 1).astype(np.uint8)),
        tmp_path / f"x.{ending}",
    )
    exif = image.getexif()
    exif[0x0112] = 3
    image.save(path, exif=exif)
    assert seen(path)[0].max() < 10
    assert seen(path)[-1].min() > 245


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    red = np.zeros((4, 4, 4), np.uint8)
    red[:, :, 0], red[:2, :, 3], red[3, :, 3] = 200, 255, 128
    Image.fromarray(red).save(tmp_path / "rgba.png")
    assert seen(tmp_path / "rgba.png")[:, 0].tolist() == [[200, 0, 0], [200, 0, 0], [255, 255, 255], [227, 127, 127]]
    grey = Image.merge("LA", (Image.new("L", (4, 4), 10), Image.fromarray(red[:, :, 3])))
    grey.save(tmp_path / "la.png")
    assert seen(tmp_path / "la.png")[:3, 0, 0].tolist() == [10, 10, 255]
    palette = Image.fromarray((np.arange(16).reshape(4, 4) % 2).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 200, 0, 200, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert seen(tmp_path / "palette.png")[0, :2].tolist() == [[255, 255, 255], [0, 200, 0]]
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(tmp_path / "deep.png", transparency=0)
    assert seen(tmp_path / "deep.png")[0, :2, 0].tolist() == [255, 1]


def test_an_image_with_nothing_to_see_is_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    with pytest.raises(InputError, match=r"clear\.png.*every pixel is transparent"):
        open_image(tmp_path / "clear.png")


def test_print_colours_one_bit_and_palettes_become_what_they_show(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    assert np.abs(seen(tmp_path / "print.jpg")[0, 0] - [255, 0, 0]).max() <= 4
    Image.fromarray(RAMP > 0.5).save(tmp_path / "bits.png")
    assert np.array_equal(seen(tmp_path / "bits.png")[:, :, 0], (RAMP > 0.5) * 255)
    Image.fromarray(NOISE).quantize(256).save(tmp_path / "palette.gif")
    assert np.abs(seen(tmp_path / "palette.gif") - NOISE).mean() < 20


@pytest.mark.parametrize("ending", ["gif", "png", "tif", "webp"])
def test_an_image_of_several_frames_is_refused(ending: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(NOISE, turn, 0)) for turn in (0, 5)]
    frames[0].save(tmp_path / f"film.{ending}", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"film.*several frames"):
        open_image(tmp_path / f"film.{ending}")


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("GIF", {}), ("PPM", {}), ("WEBP", {})],
)
def test_a_file_that_was_cut_is_refused_or_shows_the_same(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    buffer, path = io.BytesIO(), tmp_path / f"cut.{kind.lower()}"
    Image.fromarray(NOISE).save(buffer, kind, **options)
    path.write_bytes(buffer.getvalue())
    whole, reasons = seen(path), list[str]()
    for length in range(0, len(buffer.getvalue()), 7):
        path.write_bytes(buffer.getvalue()[:length])
        try:
            assert np.array_equal(seen(path), whole)
        except InputError as error:
            reasons.append(str(error))
    assert len(reasons) > 30
    assert all(path.name in reason for reason in reasons)
