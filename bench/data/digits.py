"""The `digits` data set: handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from bench.data.dataset import Dataset, Split
from bench.data.photos import shipped
from bench.errors import InputError


def digits(size: int = 8) -> Dataset:
    """Handwritten digits of scikit-learn, grey 8×8 (embedded).

    1,797 images with 17 levels, by 13 writers. They stand in the order of their writers; the first 70 % (1,257) are for
    training and the last 540 for evaluation, so that most writers are in one part only.

    Args:
        size: side of the images in pixels; more than 8 enlarges them (bilinear).

    Raises:
        InputError: `size` is less than 8.
    """
    if size < 8:
        raise InputError(f"Expected digits with size= from 8, but got {size}.")
    table = np.loadtxt(shipped("sklearn", "datasets/data/digits.csv.gz"), delimiter=",", dtype=np.float32)
    levels = torch.from_numpy(table[:, :-1]).reshape(-1, 1, 8, 8) / 16
    images = (F.interpolate(levels, (size, size), mode="bilinear") * 255).round().to(torch.uint8)
    labels = torch.from_numpy(table[:, -1]).to(torch.int64)
    first, last = slice(0, 1257), slice(1257, None)
    train, test = (Split(labels[rows], images[rows].__getitem__) for rows in (first, last))
    return Dataset("digits", tuple("0123456789"), train, test)
