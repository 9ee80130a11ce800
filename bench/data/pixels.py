"""From image files to pixels as a person sees them, in one size."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps

from bench.data.dataset import Bytes, Indices
from bench.errors import InputError

Interpolation = Literal["bilinear", "bicubic", "lanczos"]

BACKGROUND = "white"
"""The colour behind transparent pixels."""

_BITS_PER_SAMPLE, _PHOTOMETRIC_INTERPRETATION = 258, 262
THREADS = min(16, os.cpu_count() or 1)


@dataclass(frozen=True)
class Preparation:
    """How an image of any kind becomes an array of one size.

    Attributes:
        resize: the shorter side in pixels after scaling (antialiased), or None to leave it.
        crop: side of the central square in pixels, or None for the whole image.
        channels: 1 for grey, 3 for colour.
        interpolation: of the scaling.
    """

    resize: int | None = None
    crop: int | None = None
    channels: int = 3
    interpolation: Interpolation = "bilinear"

    def __repr__(self) -> str:
        """As it always was where the scaling is bilinear, since fingerprints of images depend on it."""
        other = "" if self.interpolation == "bilinear" else f", interpolation={self.interpolation!r}"
        return f"Preparation(resize={self.resize}, crop={self.crop}, channels={self.channels}{other})"

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f"Expected channels=1 (grey) or channels=3 (colour), but got {self.channels}.")
        if any(size is not None and size < 1 for size in (self.resize, self.crop)):
            raise InputError(f"Expected resize= and crop= of at least 1, but got {self.resize} and {self.crop}.")
        if self.resize and self.crop and self.crop > self.resize:
            raise InputError(f"Expected crop= of at most resize={self.resize}, but got {self.crop}.")

    def __call__(self, image: Image.Image) -> np.ndarray:
        """An 8-bit array of shape (c, h, w); raises ValueError if the image is smaller than the crop."""
        image = image.convert("RGB" if self.channels == 3 else "L")
        if self.resize:
            short = min(image.size)
            size = (self.resize * image.width // short, self.resize * image.height // short)  # as torchvision rounds
            image = image.resize(size, Image.Resampling[self.interpolation.upper()])
        if self.crop:
            if self.crop > min(image.size):
                raise ValueError(f"crop={self.crop} is more than its {image.width}×{image.height} pixels")
            left, top = round((image.width - self.crop) / 2), round((image.height - self.crop) / 2)
            image = image.crop((left, top, left + self.crop, top + self.crop))
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def open_image(path: Path) -> Image.Image:
    """An image file as a person sees it, with 8 bits a channel; colour profiles are ignored.

    It is turned as its EXIF orientation says, put on `BACKGROUND` where it is transparent, and scaled to 8 bits from
    16-bit grey or from floats in [0, 1].

    Raises:
        InputError: the file is damaged, has several frames, is wholly transparent, or holds numbers of unknown range.
    """
    try:
        with Image.open(path) as image:
            if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # an MPO is a photograph and its previews
                raise ValueError("it has several frames; save the one that counts as an image of its own")
            turned = ImageOps.exif_transpose(image)
            deep = image.mode in ("I", "F") or image.mode.startswith("I;")
            return _opaque(_eight_bits(turned, image.format, getattr(image, "tag_v2", {})) if deep else turned)
    except Exception as error:  # a decoder raises all kinds of errors on a damaged file
        raise InputError(f"The image {path} cannot be used: {error}.") from error


def _eight_bits(image: Image.Image, kind: str | None, tags: Mapping[int, Any]) -> Image.Image:
    """From grey with more than 8 bits; raises ValueError if the value of white is unknown.

    Args:
        image: its mode is F, I or one of I;16.
        kind: the format of its file.
        tags: of a TIFF file.
    """
    values = np.asarray(image, dtype=np.float64)
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError("its floats are not all in [0, 1]; scale them, or save it with 8 or 16 bits")
        shares = values
    elif image.mode == "I" and kind not in ("PNG", "PPM"):
        raise ValueError("it has 32-bit integers, whose range is unknown; save it with 8 or 16 bits")
    else:
        shares = values / (2 ** tags.get(_BITS_PER_SAMPLE, (16,))[0] - 1)
    if tags.get(_PHOTOMETRIC_INTERPRETATION) == 0:  # white is zero
        shares = 1 - shares
    shares[values == image.info.get("transparency")] = 1
    return Image.fromarray((shares * 255).round().clip(0, 255).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image
    colours = image.convert("RGBA")
    if colours.getchannel("A").getextrema() == (0, 0):
        raise ValueError("every pixel is transparent")
    return Image.alpha_composite(Image.new("RGBA", colours.size, BACKGROUND), colours).convert("RGB")


def read_all(read: Callable[[int], np.ndarray], indices: Indices) -> Bytes:
    """The images of shape (c, h, w) that `read` returns for each index, read in several threads, as one batch."""
    with ThreadPoolExecutor(THREADS) as pool:
        images = list(pool.map(read, indices.tolist()))
    shapes = sorted({image.shape[1:] for image in images})
    if len(shapes) > 1:
        raise InputError(
            f"Expected images of one size, but their heights and widths differ ({shapes[0]}, {shapes[-1]}); "
            f"pass resize= and crop=."
        )
    return torch.from_numpy(np.stack(images))
