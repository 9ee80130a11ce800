"""The faster copy of the bare model: whose place it takes, whose it does not, and that bfloat16 alone never counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from bench.checks.case import Case
from bench.contracts import Classifier, Images, InputError, Logits, Streams
from bench.core.checkpoints import Checkpoint
from bench.engine import prepare as prepare_module
from bench.engine.craft import craft
from bench.engine.prepare import check_precision, full_float32, only_calls, prepare
from bench.engine.protect import protect
from bench.engine.run import run_cell
from bench.engine.setting import InMemory, Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.models import Net, load_model
from bench.plugins.registry import make_attack, make_defense
from bench.records.schema import Cell

from ..toys import images_of, streams

SETTING = Setting("photos", "photos-cnn", images=20)
CELL = Cell("photos", "photos-cnn", "ifgsm:eps=2/255,steps=3", "jpeg", "adaptive", images=20)


def norms(model: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in model.modules())


@pytest.mark.parametrize("name", ["photos-cnn", "resnet20"])
def test_a_prepared_network_has_no_batch_norms_and_the_same_answers_and_gradients(name: str) -> None:
    bare, images, rng = load_model(name, num_classes=10, image_shape=(3, 32, 32)), images_of(12, 3, 32, 32), streams(12)
    prepared = prepare(bare, images.float(), rng)
    assert (norms(bare) > 0, norms(prepared)) == (True, 0)
    leaves = [images.float().requires_grad_() for _ in range(2)]
    logits = [model(leaf, rng) for model, leaf in zip((bare, prepared), leaves, strict=True)]
    assert (logits[0] - logits[1]).abs().max() < 1e-4
    own, other = (
        torch.autograd.grad(one.logsumexp(1).sum(), leaf)[0] for one, leaf in zip(logits, leaves, strict=True)
    )
    assert torch.allclose(own, other, atol=1e-3 * float(own.abs().max()))
    assert other.is_contiguous()


class _Peeking(nn.Module):
    """Uses the output of its convolution twice, or a weight of its batch norm: nothing can be folded."""

    def __init__(self, at_weights: bool) -> None:
        super().__init__()
        self.conv, self.norm, self.at_weights = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), at_weights
        nn.init.uniform_(self.norm.weight, 0.5, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        twice = self.norm.weight.sum() if self.at_weights else features
        return (self.norm(features) + twice).mean((2, 3))  # type: ignore[no-any-return]


@pytest.mark.parametrize("at_weights", [True, False])
def test_a_network_whose_copy_would_be_another_one_is_left_as_it_is(at_weights: bool) -> None:
    bare = Net(_Peeking(at_weights), 4).eval().requires_grad_(False)
    assert prepare(bare, images_of(6, 3, 8, 8).float(), streams(6)) is bare


@pytest.mark.parametrize(("shift", "kept"), [(5e-5, False), (2e-4, True)])
def test_answers_that_differ_by_more_than_a_ten_thousandth_are_refused(
    shift: float, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = load_model("resnet20", num_classes=10, image_shape=(3, 32, 32))
    folded = prepare_module._folded

    def slightly_wrong(network: Any, images: Tensor) -> nn.Module:
        copy: Any = folded(network, images)
        copy.linear.bias.data += shift
        return cast("nn.Module", copy)

    monkeypatch.setattr(prepare_module, "_folded", slightly_wrong)
    assert (prepare(bare, images_of(6, 3, 32, 32).float(), streams(6)) is bare) == kept


def test_only_what_wraps_the_model_gets_the_copy() -> None:
    names = ("none", "jpeg", "jpeg+median", "sentinet", "squeeze", "jpeg+squeeze")
    assert [only_calls(make_defense(name)) for name in names] == [True, True, True, False, False, False]
    testbed = testbed_of(SETTING)
    networks = {name: protect(testbed, name, lambda share, doing: None).model for name in ("none", "jpeg", "dw")}
    assert networks["none"] is testbed.prepared
    assert (norms(networks["jpeg"]), norms(networks["dw"])) == (0, norms(testbed.bare))


class _Fine(Classifier):
    """Its answer hangs on a digit that bfloat16 does not have."""

    num_classes = 2

    def forward(self, images: Images, rng: Streams) -> Logits:
        ones = torch.ones(len(images), 1)
        first, second = ones @ torch.tensor([[1.001]]), ones @ torch.tensor([[1.0]])
        return torch.cat([first.float(), second.float() + 0.0005], 1)


def test_a_success_in_bfloat16_that_float32_does_not_confirm_is_none() -> None:
    case = Case(make_defense("none")).testbed
    testbed = Testbed(replace(case.setting, precision="bfloat16", memory=InMemory(case.dataset, _Fine())))
    testbed.labels = torch.zeros_like(testbed.labels)
    assert testbed.crafting(testbed.images, testbed.streams).argmax(1).all()
    attack = make_attack("random-pixel")
    crafted = craft(attack, testbed.crafting, testbed, testbed.rows, 1, lambda share, doing: None, Checkpoint(None))
    assert crafted.right.all()


def test_a_cell_crafted_in_bfloat16_is_counted_in_float32_and_says_so() -> None:
    done = run_cell(CELL, replace(SETTING, precision="bfloat16"), lambda share, doing: None)
    testbed, outcome = done.testbed, done.outcome
    assert outcome.facts is not None
    logits = done.protected.model(done.attacked.adversarial, testbed.streams)
    assert outcome.facts.defended_attacked == (logits.argmax(1) == testbed.labels).double().tolist()
    assert outcome.provenance["network"].startswith("bfloat16")
    assert any(warning.startswith("crafted in bfloat16") for warning in outcome.warnings)
    plain = run_cell(CELL, SETTING, lambda share, doing: None).outcome
    assert plain.provenance["network"] == "float32, batch norms folded, channels last"
    assert plain.facts is not None
    assert abs(sum(plain.facts.defended_attacked) - sum(outcome.facts.defended_attacked)) <= 3


def test_bfloat16_is_refused_where_the_processor_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    check_precision("float32", "cpu")
    with pytest.raises(InputError, match="Leave out --precision"):
        check_precision("bfloat16", "cpu")


def test_a_network_that_is_more_than_its_answers_is_left_as_it_is() -> None:
    class Twice(Net):
        passes = 2

    known = load_model("resnet20", num_classes=10, image_shape=(3, 32, 32))
    bare = Twice(known.network, 10).eval()  # type: ignore[arg-type]  # torch types the layers of a module loosely
    assert prepare(bare, images_of(2, 3, 32, 32).float(), streams(2)) is bare


def test_all_answers_of_a_cell_are_in_full_float32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    settings = set[tuple[str, bool]]()

    class Noting(Classifier):
        num_classes = 4

        def forward(self, images: Images, rng: Streams) -> Logits:
            settings.add((torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32))
            return images.flatten(1)[:, :4]

    case = Case(make_defense("none")).testbed
    setting = replace(case.setting, memory=InMemory(case.dataset, Noting()))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        run_cell(Cell("toy", "toy", "random-pixel", "median", "adaptive"), setting, lambda share, doing: None)
        assert settings == {("highest", False)}
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_settings_of_a_gpu_are_those_of_before_when_a_cell_ends_in_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seen = []

    def fail() -> None:
        with full_float32():
            seen.append(torch.backends.cudnn.allow_tf32)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32
