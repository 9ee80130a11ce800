"""The call from Python: a model and images in memory give the numbers that `bench run` would give."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench
from bench.api.result import Result
from bench.checks.case import Case, ToyClassifier
from bench.contracts import Streams
from bench.core.tensor_cache import cache_folder
from bench.data.load import choose, load_dataset
from bench.engine.run import run_cell
from bench.engine.setting import Setting
from bench.errors import InputError
from bench.models import load_model
from bench.plugins.registry import make_attack, make_defense
from bench.records.command import command, commands
from bench.records.schema import Cell
from tests.builders import NASTY, Tags, outcome

FGSM = "fgsm:eps=0.1"
PATCH = "patch:quick,restarts=1,steps=2"


class Network(nn.Module):
    """The toy classifier as a module like any other, in training mode as modules begin."""

    def __init__(self, answer: Callable[[Tensor], Any] = lambda logits: logits) -> None:
        super().__init__()
        self.toy, self.answer = ToyClassifier(torch.float32), answer

    def forward(self, images: Tensor) -> Any:
        return self.answer(self.toy(images, Streams.of(0, torch.arange(len(images)))))


def network(answer: Callable[[Tensor], Any] = lambda logits: logits) -> nn.Module:
    return Network(answer).eval()


@pytest.fixture(scope="module")
def examples() -> tuple[Tensor, Tensor]:
    """Six images, the last with a wrong label."""
    case = Case(make_defense("none"))
    return case.images.float(), case.labels


@pytest.fixture(scope="module")
def training() -> tuple[Tensor, Tensor]:
    split = Case(make_defense("none")).testbed.dataset.train
    indices = torch.arange(6, len(split))  # the first six are the examples
    return split.load(indices), split.labels[indices]


def test_importing_bench_imports_no_torch() -> None:
    code = "import bench, sys; bench.__version__; dir(bench); sys.exit(len({'torch', 'pandas'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_numbers_are_those_of_the_same_cell_from_the_command_line(tmp_path: Path) -> None:
    dataset = load_dataset("photos")
    model = load_model("photos-cnn", num_classes=10, image_shape=(3, 32, 32))
    indices = choose(dataset.test, 40)
    result = bench.evaluate(model, dataset.test.load(indices), dataset.test.labels[indices], FGSM, "jpeg")
    for record in result.cells:
        cell = Cell("photos", "photos-cnn", record.cell.attack, record.cell.defense, record.cell.tier, images=40)
        expected = run_cell(cell, Setting("photos", "photos-cnn", images=40), lambda share, doing: None).outcome
        assert record.facts is not None
        assert expected.facts is not None
        assert asdict(record.facts) | {"index": []} == asdict(expected.facts) | {"index": []}
    assert [(record.cell.defense, record.cell.tier) for record in result.cells] == [
        ("none", "oblivious"), ("none", "adaptive"), ("jpeg", "oblivious"), ("jpeg", "adaptive"),
    ]  # fmt: skip


def test_the_result_has_a_table_a_frame_and_the_attacked_images(examples: tuple[Tensor, Tensor]) -> None:
    images, labels = examples
    result = bench.evaluate(network(), images, labels, [FGSM, "occlusion:area=0.1"], ["jpeg"], seed=[0, 1])
    assert "jpeg" in result.table
    assert "adaptive" in str(result)
    assert len(result.frame) == len(result.cells) == len(result.adversarial) == 2 * 2 * 2 * 2
    assert set(result.frame["seed"]) == {0, 1}
    for record in result.cells:
        adversarial = result.adversarial[record.cell]
        budget = make_attack(record.cell.attack).budget
        assert bool(budget.allows(images, adversarial).all())
        assert record.facts is not None
        assert not torch.equal(adversarial, images)


def test_what_is_shown_in_a_notebook_is_escaped() -> None:
    page = Result((outcome("patch", NASTY, "adaptive", 0.5),), {})._repr_html_()
    assert {name for name, _ in Tags(page).found} <= {"pre", "span"}
    assert "&lt;script&gt;" in page


def test_nothing_is_kept_unless_a_folder_is_given(
    examples: tuple[Tensor, Tensor], training: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    bench.evaluate(network(), *examples, PATCH, "squeeze", training=training, tier="adaptive")
    bench.defend(network(), "squeeze", training=training)
    assert cache_folder() == tmp_path / "cache"
    assert list(tmp_path.iterdir()) == []


def test_with_a_folder_a_second_call_computes_only_what_has_changed(
    examples: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    images, labels = examples
    first = bench.evaluate(network(), images, labels, FGSM, "jpeg", results=tmp_path, tier="adaptive")
    again = bench.evaluate(network(), images, labels, FGSM, "jpeg", results=tmp_path, tier="adaptive")
    assert len(first.adversarial) == 2
    assert again.adversarial == {}
    assert again.table == first.table
    assert len(bench.load_results(tmp_path)) == 2
    call = command(first.cells[1])
    assert call.startswith(
        "bench.evaluate(model, images, labels, attack='fgsm:eps=0.1', defense='jpeg', tier='adaptive'"
    )
    assert commands(first.cells) == [command(record) for record in first.cells]
    assert (tmp_path / "index.html").is_file()
    other = bench.evaluate(network(lambda x: x * 2), images, labels, FGSM, "jpeg", results=tmp_path, tier="adaptive")
    assert len(other.adversarial) == 2
    moved = bench.evaluate(network(), images * 0.999, labels, FGSM, "jpeg", results=tmp_path, tier="adaptive")
    assert len(moved.adversarial) == 2


def test_images_between_the_steps_of_8_bits_are_attacked_as_they_are(examples: tuple[Tensor, Tensor]) -> None:
    images, labels = examples
    between = (images * 0.99 + 0.0017).clamp(0, 1)
    attacked = bench.attack(network(), between, labels, "fgsm:eps=0.01")
    assert float((attacked - between).abs().max()) == pytest.approx(0.01, abs=1e-6)


def test_normalisation_outside_of_the_model_is_the_same_as_inside(examples: tuple[Tensor, Tensor]) -> None:
    inner = network()
    inside = bench.attack(lambda images: inner((images - 0.5) / 0.25), *examples, FGSM)
    outside = bench.attack(inner, *examples, FGSM, mean=np.array([0.5]), std=torch.tensor([0.25]))
    assert torch.equal(inside, outside)


@pytest.mark.parametrize("answer", [lambda logits: {"logits": logits}, lambda logits: outcome_like(logits)])
def test_logits_in_a_dict_or_an_object_are_found(answer: Any, examples: tuple[Tensor, Tensor]) -> None:
    assert torch.equal(bench.attack(network(answer), *examples, FGSM), bench.attack(network(), *examples, FGSM))


def outcome_like(logits: Tensor) -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(logits=logits)


def test_the_model_comes_back_as_it_was(examples: tuple[Tensor, Tensor]) -> None:
    model = network().requires_grad_(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    bench.evaluate(model, *examples, FGSM, "jpeg", mean=[0.5], std=[0.5])
    assert all(weight.requires_grad for weight in model.parameters())
    assert not any(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_attacked_images_are_those_of_the_strongest_cell(examples: tuple[Tensor, Tensor]) -> None:
    images, labels = examples
    attacked = bench.attack(network(), images, labels, "ifgsm:eps=0.1,steps=5")
    wrong = network()(attacked).argmax(1) != labels
    assert int(wrong.sum()) >= 3
    assert torch.equal(attacked[-1], images[-1])  # wrong by itself, and so not attacked


def test_a_cell_that_fails_has_a_reason_and_the_others_have_numbers(
    examples: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text(
        "from dataclasses import dataclass\nfrom typing import ClassVar\nfrom bench.contracts import Transform\n\n"
        "@dataclass(frozen=True)\nclass Broken(Transform):\n    'Fails.'\n    name: ClassVar[str] = 'broken-api'\n"
        "    title: ClassVar[str] = 'x'\n    def clean(self, images, rng):\n        raise ArithmeticError('no')\n"
    )
    result = bench.evaluate(network(), *examples, FGSM, "broken-api", tier="adaptive", plugins=[plugin])
    assert [record.status for record in result.cells] == ["ok", "error"]
    assert "ArithmeticError: no" in result.cells[1].reason
    with pytest.raises(RuntimeError, match="ArithmeticError"):
        bench.attack(network(), *examples, FGSM, defense="broken-api")


def test_a_detachment_is_no_obstacle_for_attacks_that_need_scores_only(examples: tuple[Tensor, Tensor]) -> None:
    model = network(lambda logits: torch.from_numpy(logits.detach().numpy()))
    assert bench.evaluate(model, *examples, "sparse-rs:queries=20").cells[0].status == "ok"
    with pytest.raises(InputError, match=r"differentiate, as fgsm:eps=0\.1 must"):
        bench.evaluate(model, *examples, FGSM)


def softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "pixels up to 255": ({"images": lambda x: x * 255}, r"values in \[0, 1\], but got values from"),
    "negative pixels": ({"images": lambda x: x - 0.5}, r"Undo a normalisation"),
    "NaN pixels": ({"images": lambda x: x * torch.nan}, r"values in \[0, 1\]"),
    "bytes": ({"images": lambda x: (x * 255).to(torch.uint8)}, r"images\.float\(\) / 255"),
    "doubles": ({"images": lambda x: x.double()}, r"images\.float\(\)"),
    "channels last": ({"images": lambda x: x.permute(0, 2, 3, 1)}, r"permute\(0, 3, 1, 2\)"),
    "one image": ({"images": lambda x: x[0]}, r"images\[None\]"),
    "no image": ({"images": lambda x: x[:0], "labels": lambda y: y[:0]}, "at least one image"),
    "numpy": ({"images": lambda x: x.numpy()}, r"torch\.as_tensor"),
    "too few labels": ({"labels": lambda y: y[:-1]}, r"each of 6 images, shape \(6,\)"),
    "labels of no class": ({"labels": lambda y: y + 4}, "from 0 to 3, the classes of the model, but got"),
    "negative labels": ({"labels": lambda y: y - 4}, "from 0 to"),
    "labels that are numbers": ({"labels": lambda y: y.float()}, "whole numbers"),
    "labels in a list": ({"labels": lambda y: y.tolist()}, "whole numbers, but got list"),
    "a model in training": ({"model": Network()}, r"Call model\.eval\(\)"),
    "no model": ({"model": "resnet18"}, "a torch module or a function as model, but got str"),
    "a model that raises": ({"model": lambda x: x @ x.sum()}, "cannot read images of 3×32×32: RuntimeError"),
    "probabilities": ({"model": network(softmax)}, "are probabilities"),
    "NaN logits": ({"model": network(lambda x: x * torch.nan)}, "finite logits"),
    "NaN for one image": ({"model": network(lambda x: torch.cat([x[:-1], x[-1:] * torch.nan]) if len(x) == 6 else x)},
        "for 1 of 6 clean images"),
    "maps": ({"model": network(lambda x: x[:, :, None])}, r"shape \(2, classes\) for 2 images, but got \(2, 4, 1\)"),
    "classes": ({"model": network(lambda x: x.argmax(1))}, "Expected logits of shape"),
    "one logit": ({"model": network(lambda x: x[:, :1])}, "two or more"),
    "a tuple": ({"model": network(lambda x: (x, x))}, "but got tuple"),
    "a defended model": ({"model": bench.defend(network(), "jpeg")}, "defense='jpeg'"),
    "no such attack": ({"attack": "pacth"}, "Did you mean 'patch'"),
    "no such defense": ({"defense": "jpg"}, "Did you mean"),
    "a patch without training images": ({"attack": PATCH}, r"Pass training=\(images, labels\)"),
    "a trained defense without training images": ({"defense": "squeeze"}, r"Pass training=\(images, labels\)"),
    "too few names": ({"classes": ["a"]}, "each of the model's 4 classes"),
    "no such target": ({"target": 9}, "as target"),
    "mean of 255": ({"mean": [127.0], "std": [50.0]}, "Divide by 255"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_before_any_work(
    case: str, examples: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_work(*given: Any) -> None:
        raise AssertionError("work has begun")

    monkeypatch.setattr("bench.api.evaluate.compute", no_work)
    changes, message = WRONG[case]
    images, labels = (
        changes.get(name, lambda x: x)(value) for name, value in zip(("images", "labels"), examples, strict=True)
    )
    others = {name: value for name, value in changes.items() if name not in ("images", "labels", "model")}
    with pytest.raises(InputError, match=message):
        bench.evaluate(changes.get("model", network()), images, labels, **{"attack": FGSM} | others)


def test_training_images_are_checked_too(examples: tuple[Tensor, Tensor], training: tuple[Tensor, Tensor]) -> None:
    images, labels = training
    for wrong, message in (
        ((images * 255, labels), "training images with values"),
        ((images, labels + 4), "training labels from 0"),
        ((images[:, :, :16], labels), r"training images of shape \(3, 32, 32\)"),
        (examples, "not evaluated on, but 6 of them are"),
    ):
        with pytest.raises(InputError, match=message):
            bench.evaluate(network(), *examples, PATCH, training=wrong)


def test_what_learns_learns_from_the_training_images(
    examples: tuple[Tensor, Tensor], training: tuple[Tensor, Tensor]
) -> None:
    result = bench.evaluate(network(), *examples, PATCH, "squeeze", training=training, tier="adaptive")
    assert [record.status for record in result.cells] == ["ok", "ok"]
    assert result.cells[1].training["images"] > 0


def test_progress_goes_from_0_to_1(examples: tuple[Tensor, Tensor]) -> None:
    seen: list[float] = []
    bench.evaluate(network(), *examples, FGSM, "jpeg", latency=True, progress=lambda share, doing: seen.append(share))
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_time_is_measured_only_if_it_is_asked_for(examples: tuple[Tensor, Tensor]) -> None:
    assert bench.evaluate(network(), *examples, FGSM).latencies == ()
    (latency,) = bench.evaluate(network(), *examples, FGSM, latency=True).latencies
    assert latency.defense == "none"


def test_a_defended_model_answers_as_the_defense_says(examples: tuple[Tensor, Tensor]) -> None:
    images, _ = examples
    defended = bench.defend(network(), "bit-depth:depth=1")
    assert defended(images).shape == (6, 4)
    assert not torch.equal(defended(images), network()(images))


def test_a_function_is_defended_as_a_module_is(examples: tuple[Tensor, Tensor]) -> None:
    images, _ = examples
    model = network()
    defended = bench.defend(lambda images: model(images), "bit-depth:depth=1")
    assert torch.equal(defended(images), bench.defend(model, "bit-depth:depth=1")(images))


def test_a_defended_model_never_answers_in_training_mode(examples: tuple[Tensor, Tensor]) -> None:
    images, _ = examples
    model = nn.Sequential(network(), nn.Dropout()).eval()
    defended = bench.defend(model, "bit-depth:depth=1")
    answers = defended(images)
    assert torch.equal(defended.train()(images), answers)
    model.train()
    with pytest.raises(InputError, match="in training mode"):
        defended(images)


def test_a_random_defended_model_draws_anew_in_each_call(examples: tuple[Tensor, Tensor]) -> None:
    images, _ = examples
    one, other = (bench.defend(network(), "tvm-guo") for _ in range(2))
    first, second = one(images), one(images)
    assert not torch.equal(first, second)
    assert torch.equal(other(images), first)
    assert torch.equal(other(images), second)


def test_a_view_of_a_defended_model_has_a_gradient(examples: tuple[Tensor, Tensor]) -> None:
    images = examples[0].clone().requires_grad_()
    defended = bench.defend(network(), "jpeg")
    (gradient,) = torch.autograd.grad(defended.through("bpda")(images).sum(), images)
    assert float(gradient.abs().sum()) > 0
    with pytest.raises(InputError, match="No view of jpeg named 'bdpa'"):
        defended.through("bdpa")(images)


def test_a_defense_that_learns_needs_training_images(training: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match=r"Pass training=\(images, labels\)"):
        bench.defend(network(), "squeeze")
    detector = bench.defend(network(), "squeeze", training=training)
    assert detector(training[0]).shape == (len(training[0]), 5)
    assert np.isfinite(detector(training[0]).numpy()).all()
