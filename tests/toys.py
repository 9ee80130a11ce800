"""Small classifiers for tests; every row is computed on its own, so that the batch never changes a bit."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts import Classifier, Model, Streams


class LinearClassifier(Classifier):
    """logits = weights · flattened image + bias; weights of shape (k, c·h·w), any float type."""

    def __init__(self, weights: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weights, self.bias, self.num_classes = weights, bias, len(weights)

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        """A sum over each row; a matrix product would round by the size of the batch."""
        logits = (images.flatten(1)[:, None] * self.weights).sum(-1)
        return logits if self.bias is None else logits + self.bias


class SmoothClassifier(Classifier):
    """A curved one: the logits of two linear layers with tanh between them; float64 by default."""

    def __init__(self, values: int, classes: int, hidden: int = 16, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.first = torch.randn(hidden, values, generator=random, dtype=dtype) / values**0.5 * 3
        self.second = torch.randn(classes, hidden, generator=random, dtype=dtype)
        self.num_classes = classes

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        """Sums over rows, as in LinearClassifier."""
        hidden = ((images - 0.5).flatten(1)[:, None] * self.first).sum(-1).tanh()
        return (hidden[:, None] * self.second).sum(-1)


class SmallConvNet(Classifier):
    """Three convolutions with random weights, float32."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten(),
                nn.LazyLinear(classes),
            )  # fmt: skip
            self.net(torch.zeros(1, 3, 16, 16))
        self.num_classes = classes
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        """For 16×16 images."""
        logits: Tensor = self.net(images)
        return logits


@dataclass(frozen=True)
class ToyExamples:
    """Labelled images to learn from, in memory."""

    images: Tensor
    labels: Tensor
    checkpoint: Path | None = None

    def load(self, indices: Tensor) -> Tensor:
        """The images with these indices."""
        return self.images[indices]

    def progress(self, share: float) -> None:
        """Checks the range."""
        assert 0 <= share <= 1


def streams(count: int, seed: int = 0) -> Streams:
    """Streams of the images 0 .. count − 1."""
    return Streams.of(seed, torch.arange(count))


def model_of(classifier: Classifier, count: int, draws: int = 1) -> Model:
    """The classifier as an attack sees it."""
    return Model(classifier, streams(count, seed=99), draws)


def images_of(count: int, *shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random images away from 0 and 1."""
    return streams(count, seed).uniform(*shape, low=0.2, high=0.8).to(dtype)


def plugin_module(name: str) -> Any:
    """A module of attacks/ or defenses/, such as `defenses.median`; they may only be loaded by name."""
    return importlib.import_module(f"bench.{name}")


def tool(name: str) -> Any:
    """A script under tools/, as a module."""
    path = Path(__file__).resolve().parent.parent / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
