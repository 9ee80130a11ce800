"""Every defense that trains no classifier bears images of any size: of one pixel, of one row, grey, oblong."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.contracts import Artifact, CertifiedDefense, Classifier, Defense, InputError, Linf, Patch, Pixels, Streams
from bench.plugins.registry import make_defense

from ..toys import ToyExamples, plugin_module

SMALL = "training_images=20,epochs=1"
TEXTS = [
    *("lgs", "dw", "dw-oracle", "jpeg", "tvm", "tvm-guo:steps=10", "median", "gaussian", "bilateral", "bit-depth"),
    *("n-pixel", "apg", "jedi", f"psd:depth=2,width=4,{SMALL}"),
    "squeeze:calibration_images=12,search=5",
    "sentinet:overlays=4,calibration_images=12,seen=2",
    "jujutsu:samples=4,holdouts=8,seen=3",
    "annnet:training_images=12,tries=2,epochs=1",
    "patchcleanser:masks=3",
    f"derandomized-smoothing:{SMALL}",
    f"derandomized-smoothing:parts=block,{SMALL}",
    f"random-ablation:groups=4,partitions=2,{SMALL}",
]
SHAPES = [(3, 1, 1), (3, 1, 20), (1, 12, 9)]


class Thirds(Classifier):
    """Three classes, by the brightness of the first, second and last third of all pixels."""

    num_classes = 3

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        pixels = images.mean(1).flatten(1).repeat(1, 3)
        slopes = torch.tensor([20.0, 21.0, 22.0], dtype=images.dtype)
        return torch.stack([third.mean(1) for third in pixels.tensor_split(3, 1)], 1) * slopes


def protected(text: str, shape: tuple[int, int, int]) -> tuple[Defense, Artifact, Tensor, Streams]:
    """A defense after learning from such images, a black, a white and two noisy ones, and their streams."""
    defense = make_defense(text)
    defense.check(shape, 3)
    images = torch.rand(20, *shape, generator=torch.Generator().manual_seed(0))
    rng = Streams.of(0, torch.arange(20))
    learned = defense.learn(Thirds(), ToyExamples(images, torch.arange(20) % 3), rng)
    images[0], images[1], images[2] = 0, 1, images[2].round()
    return defense, learned, images[:4], rng[:4]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("text", TEXTS)
def test_images_of_any_size_get_finite_answers_and_gradients(text: str, shape: tuple[int, int, int]) -> None:
    if text.startswith("random-ablation") and shape == (3, 1, 1):
        with pytest.raises(InputError, match="at most as many groups as pixels"):
            protected(text, shape)
        return
    defense, learned, images, rng = protected(text, shape)
    defended = defense.protect(Thirds(), learned)
    logits = defended(images, rng)
    assert logits.shape == (4, 3 + defended.rejects)
    assert logits.isfinite().all()
    assert defended(images[:0], rng[:0]).shape == (0, 3 + defended.rejects)
    for name, view in defense.attacker_views(Thirds(), learned).items():
        watched = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(view(watched, rng).sum(), watched)
        assert gradient.isfinite().all(), name
    if isinstance(defense, CertifiedDefense):
        labels = torch.zeros(4, dtype=torch.int64)
        right = logits.argmax(1) == labels
        for budget in (Patch(0.05), Patch(0.05, turned=False), Pixels(1), Linf(0.1)):
            assert (right | ~defense.certify(Thirds(), learned, images, labels, budget)).all()


@pytest.mark.parametrize("text", TEXTS)
def test_nan_is_refused_by_name_or_harms_no_other_image(text: str) -> None:
    defense, learned, images, rng = protected(text, (1, 12, 9))
    defended = defense.protect(Thirds(), learned)
    before = defended(images, rng)
    images[3, 0, 0, 0] = torch.nan
    try:
        after, refusal = defended(images, rng), ""
    except ValueError as error:
        after, refusal = before, str(error)
    assert "NaN" in refusal or after[3].isnan().any()
    torch.testing.assert_close(after[:3], before[:3], rtol=1e-5, atol=1e-5)


def test_an_image_of_one_row_is_filled_as_if_the_row_stood_twice() -> None:
    """OpenCV itself reads memory that nobody wrote there, and answers NaN now and then."""
    inpaint = plugin_module("defenses._inpaint").inpaint
    images = torch.rand(200, 1, 1, 20, generator=torch.Generator().manual_seed(0))
    masks = torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    filled = inpaint(images, masks)
    assert filled.isfinite().all()
    assert torch.equal(filled[~masks], images[~masks])
    assert torch.equal(filled, inpaint(images.repeat(1, 1, 2, 1), masks.repeat(1, 1, 2, 1))[:, :, :1])
