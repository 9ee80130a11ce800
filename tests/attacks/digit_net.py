"""Real digits (8×8, grey) and a small network trained on them, for tests of attacks on a bare model."""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import nn

from bench.contracts import Classifier
from bench.models.nets import Net
from bench.training import fit, private_randomness

ATTACKED = 100
"""The first images are for attacks; the network is trained on those after them."""


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All images in [0, 1], and their labels."""
    pixels, labels = load_digits(return_X_y=True)
    return torch.from_numpy(pixels / 16).float().reshape(-1, 1, 8, 8), torch.from_numpy(labels)


@cache
def classifier() -> Classifier:
    """Trained on the images after the first `ATTACKED`."""
    images, labels = digits()
    with private_randomness(0):
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(256, 10),
        )  # fmt: skip
    fit(network, images[ATTACKED:], labels[ATTACKED:], epochs=10, learning_rate=0.01, seed=0)
    return Net(network, 10).eval()
