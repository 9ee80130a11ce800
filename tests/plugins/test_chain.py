"""Defenses in a row: in their order, with the views of all of them, each learning from what reaches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from bench.contracts import Artifact, Classifier, Defense, Examples, InputError, Streams
from bench.plugins.chain import Chain
from bench.plugins.registry import make_defense

from ..toys import SmallConvNet, images_of, streams


class Few:
    """Training images that are simply there."""

    checkpoint = None

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def load(self, indices: torch.Tensor) -> torch.Tensor:
        return self.images[indices]

    def progress(self, share: float) -> None:
        assert 0 <= share <= 1


@dataclass(frozen=True)
class Looking(Defense):
    """Learns the mean of the images that it is shown, and leaves the model alone."""

    title = "looking"
    kind = "trained"

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        return {"mean": training.load(torch.arange(len(training.labels))).mean((1, 2, 3))}

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        return model


@pytest.fixture
def images() -> torch.Tensor:
    return images_of(6, 3, 16, 16, dtype=torch.float32)


def cleaned(name: str, images: torch.Tensor) -> torch.Tensor:
    return make_defense(name).clean(images, streams(len(images)))  # type: ignore[attr-defined]  # a transform


def test_the_first_one_named_sees_the_image_first(images: torch.Tensor) -> None:
    model = SmallConvNet()
    answer = make_defense("gaussian+bit-depth:depth=1").protect(model, {})(images, streams(6))
    right = model(cleaned("bit-depth:depth=1", cleaned("gaussian", images)), streams(6))
    turned = model(cleaned("gaussian", cleaned("bit-depth:depth=1", images)), streams(6))
    assert torch.equal(answer, right)
    assert not torch.allclose(answer, turned, atol=1e-3)


def test_its_views_are_all_pairs_of_views_and_differentiate_every_part(images: torch.Tensor) -> None:
    chain = make_defense("lgs+gaussian")
    views = chain.attacker_views(SmallConvNet(), {})
    assert set(views) == {"exact+exact", "bpda+exact"}
    lone = make_defense("gaussian").attacker_views(SmallConvNet(), {})["exact"]

    def gradient(of: Callable[..., torch.Tensor], at: torch.Tensor) -> torch.Tensor:
        watched = at.clone().requires_grad_()
        return torch.autograd.grad(of(watched, streams(6))[:, 0].sum(), watched)[0]

    passed = gradient(views["bpda+exact"], images)
    assert torch.allclose(passed, gradient(lone, cleaned("lgs", images)), atol=1e-6), "only LGS is passed by"
    assert not torch.allclose(gradient(views["exact+exact"], images), passed, atol=1e-6)


def test_each_part_learns_from_what_the_transforms_before_it_let_through(images: torch.Tensor) -> None:
    training = Few(images, torch.zeros(6).long())
    chain = Chain((make_defense("bit-depth:depth=1"), make_defense("median"), Looking()))
    learned = chain.learn(SmallConvNet(), training, streams(6))
    seen = cleaned("median", cleaned("bit-depth:depth=1", images))
    assert torch.equal(learned["2.mean"], seen.mean((1, 2, 3)))
    alone = Chain((Looking(), make_defense("median"))).learn(SmallConvNet(), training, streams(6))
    assert torch.equal(alone["0.mean"], images.mean((1, 2, 3)))


def test_a_detector_behind_a_transform_keeps_its_false_positive_rate() -> None:
    images = images_of(200, 3, 16, 16, dtype=torch.float32)
    model, rng = SmallConvNet(), streams(200)
    chain = make_defense("bit-depth:depth=2+squeeze:calibration_images=200,search=0")
    defended = chain.protect(model, chain.learn(model, Few(images, torch.zeros(200).long()), rng))
    rejected = (defended(images, rng).argmax(1) == 10).float().mean()
    assert 0 < float(rejected) <= 0.0501


def test_a_part_that_needs_the_original_images_is_refused() -> None:
    with pytest.raises(InputError, match="needs the original images"):
        make_defense("dw-oracle+median")


def test_what_is_said_of_its_parts_is_said_of_a_chain() -> None:
    chain = make_defense("jpeg+dw")
    assert "Dziugaite" in chain.paper
    assert "Hayes" in chain.paper
    assert chain.note == f"DW: {make_defense('dw').note}"
    assert chain.ranked
