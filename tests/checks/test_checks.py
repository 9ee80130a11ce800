from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bench.checks
from bench.checks import check_plugin
from bench.checks.run import print_checks
from bench.contracts import (
    Artifact,
    Attack,
    Budget,
    Classifier,
    Defense,
    Examples,
    Goal,
    Images,
    Linf,
    Logits,
    Model,
    Streams,
    Transform,
)
from bench.errors import MissingExtraError
from bench.plugins import registry
from bench.plugins.registry import addresses, make_attack, make_defense

PLUGIN = Path(__file__).parent.parent / "plugin" / "acme_blur.py"


def made(kind: str, name: str) -> Attack | Defense:
    try:
        return make_attack(name, "quick") if kind == "attack" else make_defense(name, "quick")
    except MissingExtraError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("attack", name) for name in sorted(addresses("attack"))]
    + [("defense", name) for name in sorted(addresses("defense"))],
)
def test_every_registered_plugin_keeps_its_contract(kind: str, name: str) -> None:
    broken = {check: fault for check, fault in check_plugin(made(kind, name)).items() if fault}
    assert broken == {}


def test_a_plugin_from_outside_passes_and_its_checks_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_from_files", {})
    assert print_checks(str(PLUGIN)) == 0
    printed = capsys.readouterr().out
    assert "acme-blur:" in printed
    assert "kept    has the true gradient" in printed


@dataclass(frozen=True)
class Bad(Attack):
    """An attack with one fault."""

    fault: str = ""
    title: ClassVar[str] = "bad"
    access = "gradients"

    @property
    def budget(self) -> Budget:
        return Linf(0.1)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        model(images)
        if self.fault == "global torch":
            return (images + 0.05 * torch.rand(())).clamp(0, 1)
        if self.fault == "global numpy":
            return (images + 0.05 * np.random.rand()).clamp(0, 1)  # noqa: NPY002  # the fault
        if self.fault == "batch":
            return (images + 0.05 * images.mean()).clamp(0, 1)
        if self.fault == "range":
            return images + 0.09
        if self.fault == "budget":
            return (images - 0.2).clamp(0, 1)
        if self.fault == "shape":
            return images[..., 1:]
        return (images - 0.05).clamp(0, 1)


_SHOWN: list[int] = []


@dataclass(frozen=True)
class BadTransform(Transform):
    """A transform with one fault."""

    fault: str = ""
    title: ClassVar[str] = "bad"

    def clean(self, images: Images, rng: Streams) -> Images:
        if self.fault == "undeclared":
            return (images + 0.1 * rng.uniform(1, 1, 1)).clamp(0, 1)
        if self.fault == "neighbours":
            return images - images.mean() / 10 + 0.05
        if self.fault == "range":
            return images + 1
        if self.fault == "no gradient":
            return (images * 7).round() / 7
        if self.fault == "inputs":
            images.clamp_(0.2, 0.8)
        if self.fault == "memory":
            shift = 0.1 * len(_SHOWN)
            _SHOWN.append(1)
            return (images + shift).clamp(0, 1)
        if self.fault == "constant images":
            return images / images.amax((1, 2, 3), keepdim=True)
        if self.fault == "NaN":
            return torch.where(images.isnan().any(), torch.zeros_like(images), images)
        return images

    def differentiable(self, images: Images, rng: Streams) -> Images:
        if self.fault == "false gradient":
            return 3 * images - 2 * images.detach()
        return images**2 if self.fault == "another function" else self.clean(images, rng)


@pytest.mark.parametrize(
    ("plugin", "finding"),
    [
        (Bad("global torch"), "changes_nothing_that_others_use"),
        (Bad("global numpy"), "changes_nothing_that_others_use"),
        (Bad("batch"), "does_not_depend_on_the_batch"),
        (Bad("range"), "gives_images_within_its_budget"),
        (Bad("budget"), "gives_images_within_its_budget"),
        (Bad("shape"), "gives_images_within_its_budget"),
        (BadTransform("undeclared"), "says_whether_it_is_random"),
        (BadTransform("neighbours"), "answers_each_image_by_itself"),
        (BadTransform("range"), "cleans_images_to_images"),
        (BadTransform("constant images"), "handles_extreme_images"),
        (BadTransform("NaN"), "refuses_nan_or_confines_it"),
        (BadTransform("no gradient"), "has_a_gradient"),
        (BadTransform("inputs"), "cleans_images_to_images"),
        (BadTransform("inputs"), "leaves_the_images_alone"),
        (BadTransform("memory"), "remembers_no_image"),
        (BadTransform("neighbours"), "runs_in_a_cell"),
        (BadTransform("false gradient"), "has_the_true_gradient"),
        (BadTransform("another function"), "cleans_images_to_images"),
    ],
)
def test_a_fault_is_found_by_the_check_that_is_named_for_it(plugin: Any, finding: str) -> None:
    assert check_plugin(plugin)[finding] is not None


@pytest.mark.parametrize("plugin", [Bad(), BadTransform()])
def test_a_plugin_without_a_fault_has_no_finding(plugin: Any) -> None:
    assert not any(check_plugin(plugin).values())


class Scaled(Classifier):
    """The model's logits times weights, which are loaded as torch has them: none may be missing or unknown."""

    def __init__(self, model: Classifier, weights: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.num_classes, self.expected = model, model.num_classes, dtype
        self.scale = nn.Conv1d(1, 1, 1, bias=False, device="meta").to_empty(device="cpu")
        self.scale.load_state_dict(weights, strict=True)

    def forward(self, images: Images, rng: Streams) -> Logits:
        if self.expected and images.dtype != self.expected:
            raise TypeError(f"expected {self.expected}")
        logits: Tensor = self.model(images, rng)
        return logits * self.scale.weight.flatten().detach().to(logits.dtype)


@dataclass(frozen=True)
class Learner(Defense):
    """Learns a state dict; `fault` names what it cannot do in `bench run`."""

    fault: str = ""
    title: ClassVar[str] = "learner"
    kind = "trained"

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        return {"weight": torch.full((1, 1, 1), 2.0)}

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        return Scaled(model, learned, torch.float64 if self.fault == "float32" else None)


def test_what_passes_runs_in_a_cell_and_what_cannot_run_fails() -> None:
    assert not any(check_plugin(Learner()).values()), "what learning cost is among what was learned"
    assert "expected torch.float64" in str(check_plugin(Learner("float32"))["runs_in_a_cell"])


@bench.checks.parametrize(PLUGIN)
def test_each_check_of_a_plugin_is_a_test_of_its_own(check: Callable[[], None]) -> None:
    check()
