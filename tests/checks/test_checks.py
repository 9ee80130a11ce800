from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

import bench.checks
from bench.checks import check_plugin
from bench.checks.run import print_checks
from bench.contracts import Attack, Budget, Defense, Goal, Images, Linf, Model, Streams, Transform
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
        (BadTransform("false gradient"), "has_the_true_gradient"),
        (BadTransform("another function"), "cleans_images_to_images"),
    ],
)
def test_a_fault_is_found_by_the_check_that_is_named_for_it(plugin: Any, finding: str) -> None:
    assert check_plugin(plugin)[finding] is not None


@pytest.mark.parametrize("plugin", [Bad(), BadTransform()])
def test_a_plugin_without_a_fault_has_no_finding(plugin: Any) -> None:
    assert not any(check_plugin(plugin).values())


@bench.checks.parametrize(PLUGIN)
def test_each_check_of_a_plugin_is_a_test_of_its_own(check: Callable[[], None]) -> None:
    check()
