"""Cost of `pixel` relative to bare forward passes, and time to success of the pixel searches relative to ART's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contracts import Classifier, Goal, Model, Streams
from bench.data.dataset import choose
from bench.data.load import load_dataset
from bench.models import load_model
from bench.plugins.registry import make_attack


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def photos(count: int) -> tuple[Classifier, Tensor, Tensor]:
    """The default model, and photos that it classifies correctly."""
    data = load_dataset("photos")
    model = load_model("photos-cnn", num_classes=len(data.classes), image_shape=data.image_shape)
    indices = choose(data.test, 2 * count)
    images, labels = data.test.load(indices), data.test.labels[indices]
    right = (model(images, Streams.of(0, indices)).argmax(1) == labels).nonzero()[:count, 0]
    return model, images[right], labels[right]


class Unmoved(Classifier):
    """Wraps a classifier so that class 0 always wins."""

    def __init__(self, inside: Classifier) -> None:
        super().__init__()
        self.inside, self.num_classes = inside, inside.num_classes

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        logits: Tensor = self.inside(images, rng)
        return torch.cat([logits[:, :1] + 1e6, logits[:, 1:]], 1)


def test_forwards_of_pixel_over_the_best_bare_forwards(benchmark: Any) -> None:
    """Queries per second of `pixel`, relative to the bare model at its best batch size; the goal is 0.95."""
    inside, images, _ = photos(4)
    classifier, goal, rng = Unmoved(inside), Goal(torch.zeros(4, dtype=torch.int64)), Streams.of(0, torch.arange(4))
    population, generations, rounds = (400, 4, 5) if benchmark.enabled else (20, 1, 1)
    attack = make_attack(f"pixel:population={population},generations={generations}")
    many = images.repeat(128 if benchmark.enabled else 8, 1, 1, 1)
    ratios = []
    for _ in range(rounds):
        bare = 0.0
        for size in (32, 64, 128, 256, 512) if benchmark.enabled else (512,):
            parts = [(part, Streams.of(0, torch.arange(len(part)))) for part in many.split(size)]
            with torch.no_grad():
                spent = seconds(lambda parts=parts: [classifier(*part) for part in parts])
            bare = max(bare, len(many) / spent)
        model = Model(classifier, rng)
        spent = seconds(lambda model=model: attack.perturb(model, images, goal, rng))
        ratios.append(float(model.forwards.sum()) / spent / bare)
    benchmark.extra_info["forwards a second over the bare model's best"] = round(statistics.median(ratios), 3)
    benchmark.pedantic(lambda: attack.perturb(Model(classifier, rng), images, goal, rng), rounds=1)


def art(classifier: Classifier, images: Tensor, labels: Tensor, generations: int) -> Tensor:
    """ART's one pixel: population 400."""
    from art.attacks.evasion import PixelAttack
    from art.estimators.classification import PyTorchClassifier

    plain = Plain(classifier, 255).eval()
    shape = tuple(images.shape[1:])
    wrapped = PyTorchClassifier(plain, torch.nn.CrossEntropyLoss(), shape, 10, clip_values=(0, 255), device_type="cpu")
    attack = PixelAttack(wrapped, th=1, es=1, max_iter=generations)
    return torch.from_numpy(attack.generate((images * 255).numpy(), labels.numpy())) / 255


def torchattacks(classifier: Classifier, images: Tensor, labels: Tensor, generations: int) -> Tensor:
    """That of torchattacks, also with population 400 instead of its default 10; it puts models into training mode."""
    package = pytest.importorskip("torchattacks", reason="it pins old packages, so tox -e torchattacks alone has it")
    attack = package.OnePixel(Plain(classifier, 1).eval(), pixels=1, steps=generations, popsize=400)
    made: Tensor = attack(images, labels)
    return made


class Plain(torch.nn.Module):
    """The classifier in the form that other libraries expect, for values up to `top`."""

    def __init__(self, inside: Classifier, top: float) -> None:
        super().__init__()
        self.inside, self.top = inside, top

    def forward(self, images: Tensor) -> Tensor:
        return self.inside(images / self.top, Streams.of(0, torch.arange(len(images))))


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # ART's population does not differ at all at times
@pytest.mark.parametrize("library", [art, torchattacks])
@pytest.mark.parametrize("text", ["corner-pixel", "pixel"])
def test_time_over_that_of_a_library_to_the_same_success(benchmark: Any, text: str, library: Any) -> None:
    """Time per image with up to 100 generations; the goal is 1/5 of the faster library's."""
    count, generations = (4, 100) if benchmark.enabled else (1, 1)
    classifier, images, labels = photos(count)
    goal, rng = Goal(labels), Streams.of(0, torch.arange(count))
    found: list[Tensor] = []
    their_seconds = seconds(lambda: found.append(library(classifier, images, labels, generations)))
    attack = make_attack(text if benchmark.enabled else "corner-pixel:quick")
    our_seconds = seconds(lambda: found.append(attack(Model(classifier, rng), images, goal, rng)))
    success, reached = (int(goal.reached(classifier(made, rng)).sum()) for made in found)
    benchmark.extra_info["time over the library's"] = round(our_seconds / their_seconds, 3)
    benchmark.extra_info["success, and the library's"] = (reached, success)
    benchmark.pedantic(lambda: attack(Model(classifier, rng), images, goal, rng), rounds=1)
