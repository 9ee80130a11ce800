"""Volumization as a defense: what it learns, what its attacker differentiates, and what it proves."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.contracts import Artifact, CertifiedDefense, Classifier, InputError, Linf, Patch, Pixels, answers
from bench.core import checkpoints
from bench.models.nets import MnistCNN, Net
from bench.plugins.registry import make_defense
from bench.training import fit

from ..toys import ToyExamples, plugin_module, streams

volume, deciding, curricula = (plugin_module(f"defenses.{name}") for name in ("_volume", "_slices", "_curriculum"))
SMALL = "epochs=2,batch_size=16"


def shades(count: int, side: int = 8, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy images around a shade of grey, and whether they are bright."""
    generator = torch.Generator().manual_seed(seed)
    shade = torch.rand(count, 1, 1, 1, generator=generator) * 0.6 - 0.3
    images = (0.5 + shade + 0.2 * torch.rand(count, 1, side, side, generator=generator) - 0.1).clamp(0, 1)
    return images, (images.mean((1, 2, 3)) > 0.5).long()


@dataclass(frozen=True)
class InterruptedExamples(ToyExamples):
    """Examples for a training that is interrupted once this share is done."""

    patience: float = 2

    def progress(self, share: float) -> None:
        if share >= self.patience:
            raise KeyboardInterrupt


def net(features: int = 4) -> Net:
    """A convolution, two classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(1, features, 3, padding=1), nn.BatchNorm2d(features), nn.ReLU()
        made = Net(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 2)), 2)
    return made.eval().requires_grad_(False)


class DarkOrBright(nn.Module):
    """The logits of each slice, by its mean."""

    def forward(self, volumes: Tensor, rng: Any) -> Tensor:
        mean = volumes.mean((1, 3, 4)) - 0.5
        return torch.stack([-mean, mean], 2) * 5


def made(text: str) -> Any:
    return make_defense(f"volumization:{text}")


def learned(text: str, model: Classifier, side: int = 8, **more: Any) -> Artifact:
    images, labels = shades(48, side, seed=5)
    artifact: Artifact = made(text).learn(model, InterruptedExamples(images, labels, **more), streams(48))
    return artifact


@pytest.mark.parametrize(
    "text",
    [
        "",
        "order=raster",
        "order=random",
        "depth=1",
        "depth=z,size=2",
        "start=scratch,inflation=mean",
        "curriculum=macro,macro=2",
        "curriculum=pacing",
        "curriculum=none,reduction=sum",
        "size=3,pad=reflect,aggregate=trimmed-mean",
        "measure=kl,bins=256,reference=1,order=desc,convention=raw",
    ],
)
def test_every_variant_learns_the_same_twice_and_classifies(text: str) -> None:
    text, model = ",".join(["epochs=8,batch_size=16,learning_rate=0.03", *filter(None, [text])]), net()
    first, second = learned(text, model), learned(text, model)
    assert all(torch.equal(one, second[name]) for name, one in first.items())
    images, labels = shades(64)
    defended = made(text).protect(model, first)
    assert defended.random == ("order=random" in text)
    assert (answers(defended, images, streams(64)).argmax(1) == labels).float().mean() > 0.8


@pytest.mark.parametrize("syllabus", ["none", "batch", "macro", "pacing"])
def test_labels_move_with_their_images(syllabus: str) -> None:
    labels = torch.arange(40)
    images = (labels / 40)[:, None, None, None].expand(40, 3, 8, 8)
    course = curricula.Curriculum(syllabus, volume.Ranking("max-norm"), images, 8, epochs=2, macro=2)
    seen = []

    def loss(network: nn.Module, batch: Any) -> Tensor:
        assert torch.equal((batch.images[:, 0, 0, 0] * 40).round().long(), batch.targets)
        seen.append(batch.targets)
        return network.weight.sum() * 0

    fit(nn.Linear(1, 1), images, labels, epochs=2, learning_rate=0.1, seed=0, loss=loss, batches=course.batches)
    assert [len(one) for one in seen] == [8] * 10
    assert torch.equal(torch.cat(seen[5:]).sort().values, labels)


def test_weights_start_from_the_bare_ones_or_from_the_seed() -> None:
    model = net()
    none = "learning_rate=0,weight_decay=0,shift=0,depth=3"
    bare, fresh = (learned(f"{SMALL},{none},start={one}", model) for one in ("bare", "scratch"))
    name = "net.net.classifier.network.0.weight"
    assert torch.equal(bare[name][:, :, 1], model.network[0].weight)
    assert not bare[name][:, :, ::2].any()
    assert fresh[name].ne(0).all()
    assert not torch.equal(fresh[name][:, :, 1], model.network[0].weight)


def test_a_killed_training_with_a_curriculum_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
    text, model = "epochs=6,batch_size=8,curriculum=macro,macro=2,order=random", net()
    with pytest.raises(KeyboardInterrupt):
        learned(text, model, checkpoint=tmp_path, patience=0.5)
    assert list(tmp_path.iterdir())
    resumed, whole = learned(text, model, checkpoint=tmp_path), learned(text, model)
    assert all(torch.equal(one, resumed[name]) for name, one in whole.items())


def test_the_order_of_slices_is_that_of_the_image_at_hand() -> None:
    """An attacker who changes the image changes the order, too, and the gradient is that of the new order."""
    model = net()
    defense = made(f"{SMALL},measure=entropy,size=4,depth=3,inflation=mean")
    defended = defense.protect(model, learned(f"{SMALL},measure=entropy,size=4,depth=3,inflation=mean", model))
    images = shades(4)[0]
    flat = images.clone()
    flat[:, :, 4:, 4:] = 0.5  # the last slice comes first now
    order = defended.volumizer.order.order(defended.volumizer.slicing.cut(flat).flatten(2))
    assert (order[:, 0] == 3).all()
    stacked = volume.stack(defended.volumizer.slicing.cut(flat), order)
    assert torch.equal(defended.volumizer.volume(flat, streams(4)), stacked)
    way = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact, watched = defended.double(), images.double().requires_grad_()
    (gradient,) = torch.autograd.grad(exact(watched, streams(4))[:, 0].sum(), watched)
    ahead, behind = (exact(images.double() + sign * 1e-6 * way, streams(4))[:, 0].sum() for sign in (1, -1))
    assert float((gradient * way).sum()) == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-4)


def test_votes_are_attacked_through_the_slices_that_support_the_answer() -> None:
    model = net()
    (view,) = made("certified").attacker_views(model, learned(f"{SMALL},depth=1", model)).values()
    defended = view.model
    defended.net = DarkOrBright()
    images = torch.full((4, 1, 8, 8), 0.95)
    images[:, :, :4, :4] = 0.05  # one slice of four
    watched = images.clone().requires_grad_()
    logits = view(watched, streams(4))
    assert torch.equal(logits, defended(images, streams(4)))
    answers = logits.argmax(1)
    supporting = defended.slices(images, streams(4)).argmax(2) == answers[:, None]
    assert (supporting != supporting[:, :1]).any(), "the slices agree, so nothing is tested"
    (gradient,) = torch.autograd.grad(logits.gather(1, answers[:, None]).sum(), watched)
    sizes = defended.volumizer.slicing.cut(gradient).abs().amax((2, 3, 4))
    assert torch.equal(sizes > 0, supporting)


# ------------------------------------------------------------------ the proof


PROVING = ["size=2", "size=3,pad=reflect", "size=1"]


@pytest.fixture(params=PROVING, scope="module")
def proving(request: pytest.FixtureRequest) -> tuple[CertifiedDefense, Classifier, Artifact]:
    """Votes of independent slices of 8×8 images, after learning."""
    text, model = f"depth=1,aggregate=vote,batch_size=16,epochs=10,learning_rate=0.03,{request.param}", net()
    return made(text), model, learned(text, model)


@pytest.mark.parametrize(
    ("budget", "box"), [(Patch(0.02), (1, 1)), (Patch(0.065, turned=False), (2, 2)), (Pixels(1), (1, 1))], ids=str
)
def test_no_brute_force_turns_what_is_certified(
    proving: tuple[CertifiedDefense, Classifier, Artifact], budget: Any, box: tuple[int, int]
) -> None:
    defense, model, artifact = proving
    images, labels = shades(12)
    defended = defense.protect(model, artifact)
    sure = defense.certify(model, artifact, images, labels, budget)
    assert sure.any()
    assert (answers(defended, images, streams(12)).argmax(1) == labels)[sure].all()
    tall, wide = box
    generator = torch.Generator().manual_seed(1)
    for row, column in itertools.product(range(8 - tall + 1), range(8 - wide + 1)):
        for content in (torch.zeros(tall, wide), torch.ones(tall, wide), torch.rand(tall, wide, generator=generator)):
            changed = images.clone()
            changed[:, :, row : row + tall, column : column + wide] = content
            assert budget.allows(images, changed).all()
            assert (answers(defended, changed, streams(12)).argmax(1) == labels)[sure].all()


def test_the_proof_holds_wherever_twice_the_tiles_that_a_patch_meets_are_fewer_than_the_lead(
    proving: tuple[CertifiedDefense, Classifier, Artifact],
) -> None:
    defense, model, artifact = proving
    images, labels = shades(40)
    budget, side = Patch(1 / 64), 3  # turned, it may be as wide as three pixels
    sure = defense.certify(model, artifact, images, labels, budget)
    network: Any = defense.protect(model, artifact)
    counts = deciding.votes(network.slices(images, streams(40))).sum(1)
    own = counts.gather(1, labels[:, None])[:, 0]
    lead = own - counts.scatter(1, labels[:, None], 0).amax(1)
    met = (-(-(side - 1) // network.volumizer.slicing.size) + 1) ** 2
    assert sure[lead > 2 * met].all()
    assert not sure[lead <= 0].any()


@pytest.mark.parametrize("text", ["depth=3,aggregate=vote", "depth=1,aggregate=mean-prob", "depth=3"])
def test_nothing_is_certified_where_slices_mix_or_do_not_vote(text: str) -> None:
    model, (images, labels) = net(), shades(8)
    artifact = learned(f"{SMALL},size=2,{text}", model)
    assert not made(f"{SMALL},size=2,{text}").certify(model, artifact, images, labels, Patch(0.02)).any()


def test_nothing_is_certified_for_changes_of_every_pixel(
    proving: tuple[CertifiedDefense, Classifier, Artifact],
) -> None:
    defense, model, artifact = proving
    assert not defense.certify(model, artifact, *shades(8), Linf(1 / 255)).any()


# ------------------------------------------------------------------ parameters


@pytest.mark.parametrize(
    ("shape", "slices"), [((3, 32, 32), 4), ((1, 28, 28), 4), ((3, 64, 64), 16), ((3, 224, 224), 16), ((3, 16, 32), 8)]
)
def test_the_usual_slices_fit_the_image(shape: tuple[int, int, int], slices: int) -> None:
    made("reference=3").check(shape, 10)
    defense = make_defense("volumization", "paper")
    rows, columns = defense._slicing(*shape[1:]).grid(*shape[1:])
    assert rows * columns == slices


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size=5", "Choose one of 1, 2, 4, 8, 16, 32, or pad=reflect"),
        ("size=64,pad=reflect", "at most 32"),
        ("reference=4", "slices 0 … 3"),
    ],
)
def test_slices_that_do_not_fit_the_image_are_reported_before_any_work(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(text).check((3, 32, 32), 10)


@pytest.mark.parametrize(
    "text",
    [
        "size=0",
        "bins=10",
        "bins=0",
        "depth=0",
        "depth=y",
        "macro=0",
        "easiest=0",
        "reference=-1",
        "measure=mi",
        "epochs=0",
    ],
)
def test_parameters_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        made(text)


def test_a_network_that_reads_only_whole_images_is_refused() -> None:
    images, labels = shades(8, 28)
    with pytest.raises(InputError, match="global pooling"):
        made("").learn(Net(MnistCNN(2), 2), ToyExamples(images, labels), streams(8))
