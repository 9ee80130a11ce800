"""Segment and complete: what it finds, how it completes, and what an attacker gets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.contracts import Artifact, Classifier, InputError, Streams
from bench.plugins.registry import make_defense

from ..toys import ToyExamples, streams

TEXT = "sac:epochs=10,training_images=80,steps=2,width=8"


class Brightness(Classifier):
    """Two classes, dark and bright, by the mean of all pixels."""

    num_classes = 2

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(50.0), requires_grad=False)

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        mean = images.mean((1, 2, 3)) - 0.5
        return torch.stack([-mean, mean], 1) * self.scale


def shades(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Slow waves around a dark or a bright grey."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    phase = 6 * torch.rand(count, 1, 1, generator=generator)
    waves = torch.sin(torch.linspace(0, 4, 24)[:, None] + phase) * torch.cos(torch.linspace(0, 3, 24) + phase)
    return (0.42 + 0.16 * labels[:, None, None] + 0.1 * waves)[:, None].repeat(1, 3, 1, 1), labels


def patched(images: Tensor) -> Tensor:
    attacked = images.clone()
    noise = torch.rand(len(images), 3, 6, 6, generator=torch.Generator().manual_seed(1))
    attacked[:, :, 5:11, 8:14] = noise.round()
    return attacked


@pytest.fixture(scope="module")
def learned() -> Artifact:
    images, labels = shades(80, 0)
    return make_defense(TEXT).learn(Brightness(), ToyExamples(images, labels), streams(80))


def test_it_finds_a_patch_and_leaves_clean_images_alone(learned: Artifact) -> None:
    defense = make_defense(TEXT)
    images, _ = shades(10, 7)
    attacked = patched(images)
    changed = (attacked != images).any(1)
    mask = defense.mask(Brightness(), learned, attacked, streams(10))
    assert mask is not None
    assert mask[changed].float().mean() > 0.9
    assert mask[~changed].float().mean() < 0.15
    clean = defense.mask(Brightness(), learned, images, streams(10))
    assert clean is not None
    assert clean.float().mean() < 0.02


def test_a_broken_square_is_completed_and_nothing_else_becomes_one() -> None:
    defense = make_defense("sac:area=0.1,tolerance=0.3")
    masks = torch.zeros(3, 1, 20, 20, dtype=torch.bool)
    masks[0, :, 4:10, 4:10] = True
    whole = masks[0].clone()
    masks[0, :, 6:8, 6:8] = False
    masks[1, :, 0, :] = True
    completed = defense.completed(masks)
    assert (completed[0] & whole).sum() == whole.sum()
    assert torch.equal(completed[1:], masks[1:])


def test_the_views_answer_as_the_defense_and_lead_somewhere(learned: Artifact) -> None:
    defense, (images, labels) = make_defense(TEXT), shades(6, 3)
    attacked, rng = patched(images), streams(6)
    answers = defense.protect(Brightness(), learned)(attacked, rng)
    for view in defense.attacker_views(Brightness(), learned).values():
        watched = attacked.clone().requires_grad_()
        logits = view(watched, rng)
        torch.testing.assert_close(logits, answers)
        (gradient,) = torch.autograd.grad(logits.gather(1, labels[:, None]).sum(), watched)
        assert gradient.isfinite().all()
        assert (gradient.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("text", ["sac:area=0", "sac:tolerance=2", "sac:steps=0", "sac:fill=white"])
def test_parameters_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=text.partition(":")[2].partition("=")[0]):
        make_defense(text)
