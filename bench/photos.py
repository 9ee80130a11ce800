"""Ten photographs that ship inside scikit-image and scikit-learn, cut in two and read as crops."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

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
LEFT = 0.68


def read_parts(name: str, side: int):
    package, path = PHOTOGRAPHS[name]
    (folder,) = find_spec(package).submodule_search_locations
    with Image.open(Path(folder) / path) as file:
        photo = file.convert("RGB")
    scale = side / min(photo.size)
    cut = round(LEFT * photo.width)

    def part(left, right):
        piece = photo.crop((left, 0, right, photo.height))
        size = (round(piece.width * scale), round(piece.height * scale))
        return np.asarray(piece.resize(size, Image.Resampling.BILINEAR))

    return part(0, cut), part(cut, photo.width)


def positions(photo, crop, count, rng):
    rows, columns = photo.shape[0] - crop + 1, photo.shape[1] - crop + 1
    chosen = rng.permutation(rows * columns)[:count]
    return np.stack([chosen // columns, chosen % columns], axis=1)
