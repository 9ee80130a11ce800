"""Ten photographs that ship inside scikit-image and scikit-learn, cut in two and read as crops."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from bench.data.dataset import Bytes, Dataset, Indices, Split, generator
from bench.errors import InputError

PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "hubble": ("skimage", "data/hubble_deep_field.jpg"),
    "immunohistochemistry": ("skimage", "data/ihc.png"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
}
"""Class -> the package that ships its photograph, and where in it."""

_LEFT = 0.68


def photos(side: int = 160, crop: int = 32, train: int = 400, test: int = 100, seed: int = 0) -> Dataset:
    """Crops of ten photographs, a class each (embedded, the default).

    No pixel of a training crop is in an evaluation crop.

    Each photograph is cut into the left 68 % and the right 32 % before it is scaled, so that no filter mixes
    the two. Training crops come from the left part and evaluation crops from the right part, all at different
    positions; a larger number of crops contains the crops of a smaller number with the same seed.

    Args:
        side: shorter side of each photograph in pixels, after scaling.
        crop: side of the square crops in pixels, up to 224.
        train: training crops for each class.
        test: evaluation crops for each class.
        seed: of the positions.

    Raises:
        InputError: a parameter is out of range, or the right part of a photograph is too small for so large
            or so many crops.
    """
    if not 1 <= crop <= 224:
        raise InputError(f"Expected photos with crop= from 1 to 224, but got {crop}.")
    if min(side, train, test) < 1:
        raise InputError(f"Expected photos with side=, train= and test= from 1, but got {side}, {train}, {test}.")
    _require_room(side, crop)
    parts = [_parts(name, side) for name in PHOTOGRAPHS]
    left, right = zip(*parts, strict=True)
    return Dataset(
        "photos", tuple(PHOTOGRAPHS), _split(left, crop, train, (seed, 0)), _split(right, crop, test, (seed, 1))
    )


def shipped(package: str, path: str) -> Path:
    """A file that ships inside a package, without importing it; raises InputError if it is missing."""
    spec = find_spec(package)
    file = Path(spec.origin or "").parent / path if spec else Path(package) / path
    if not file.is_file():
        raise InputError(f"The file {file}, which ships with {package}, is missing; install it again.")
    return file


def _cut(width: int) -> int:
    return round(_LEFT * width)


def _require_room(side: int, crop: int) -> None:
    """Raises InputError unless the crops fit into the right parts, which are the narrower ones."""
    needed = 0
    for name in PHOTOGRAPHS:
        with Image.open(shipped(*PHOTOGRAPHS[name])) as photo:
            needed = max(needed, math.ceil(crop * min(photo.size) / (photo.width - _cut(photo.width))))
    if side < needed:
        raise InputError(
            f"Crops of {crop} pixels do not fit into the right 32 % of photographs with side={side}: "
            f"expected side={needed} or more, or a smaller crop=."
        )


def _parts(name: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right part, 8-bit arrays of shape (h, w, 3)."""
    with Image.open(shipped(*PHOTOGRAPHS[name])) as file:
        photo = file.convert("RGB")
    scale = side / min(photo.size)

    def part(left: int, right: int) -> np.ndarray:
        size = (round((right - left) * scale), round(photo.height * scale))
        return np.asarray(photo.crop((left, 0, right, photo.height)).resize(size, Image.Resampling.BILINEAR))

    cut = _cut(photo.width)
    return part(0, cut), part(cut, photo.width)


def _split(parts: tuple[np.ndarray, ...], crop: int, count: int, seed: tuple[int, int]) -> Split:
    windows = [sliding_window_view(part, (crop, crop), axis=(0, 1)) for part in parts]
    room = min(view.shape[0] * view.shape[1] for view in windows)
    if count > room:
        raise InputError(
            f"Expected at most {room} different crops of {crop} pixels a photograph, but got {count}; "
            "there are more with a larger side=."
        )
    corners = np.stack(
        [
            np.unravel_index(generator(*seed, label).permutation(math.prod(view.shape[:2]))[:count], view.shape[:2])
            for label, view in enumerate(windows)
        ]
    )

    def read(indices: Indices) -> Bytes:
        crops = np.empty((len(indices), 3, crop, crop), np.uint8)
        owner, place = np.divmod(indices.numpy(), count)
        for label in np.unique(owner):
            rows = owner == label
            top, left = corners[label][:, place[rows]]
            crops[rows] = windows[label][top, left]
        return torch.from_numpy(crops)

    return Split(torch.arange(len(parts)).repeat_interleave(count), read)
