"""Facts about images whose logits are not finite, and records that say when a number is worth nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from jaxtyping import Bool
from torch import Tensor

from bench.checks.case import Case
from bench.contracts import Artifact, Classifier, Defense, Images, Logits, Streams
from bench.engine.craft import Crafted
from bench.engine.interference import InterferenceError, unchanged
from bench.engine.judge import judge
from bench.engine.protect import Protected, at_work
from bench.engine.setting import InMemory
from bench.engine.testbed import NonFiniteLogitsError, Testbed
from bench.plugins.registry import make_attack, make_defense
from bench.records.metrics import covered
from bench.records.schema import COVERED, COVERED_WRONGLY, Facts
from bench.records.warnings import warnings_of


@pytest.fixture
def testbed() -> Testbed:
    """Six toy images, the last of which the toy classifier gets wrong."""
    return Case(make_defense("none")).testbed


class Fragile(Classifier):
    """The bare model, whose logits are not finite where an image has a black pixel in its corner."""

    def __init__(self, model: Classifier, rejects: bool = False, value: float = torch.nan) -> None:
        super().__init__()
        self.model, self.num_classes, self.rejects, self.value = model, model.num_classes, rejects, value
        self.non_finite_rejects = rejects

    def forward(self, images: Images, rng: Streams) -> Logits:
        logits: Logits = self.model(images, rng)
        if self.rejects:
            logits = torch.cat([logits, logits.amin(1, keepdim=True) - 1], 1)
        broken = images[:, 0, 0, 0] == 0
        return torch.where(broken[:, None], self.value, logits)


def attacked(testbed: Testbed) -> Crafted:
    """A black pixel in the corner of the first three images."""
    adversarial = testbed.images.clone()
    adversarial[:3, :, 0, 0] = 0
    nothing = torch.zeros(len(testbed))
    return Crafted(adversarial, nothing == 0, nothing == 0, nothing, nothing)


def facts_of(model: Classifier, testbed: Testbed) -> Facts:
    defense = make_defense("squeeze" if model.rejects else "jpeg")
    clean = model(testbed.images, testbed.streams)[None]
    crafted = attacked(testbed)
    return judge(make_attack("random-pixel"), Protected(defense, {}, model, clean), crafted, crafted, testbed)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_wrong_and_a_success_of_the_attacker(value: float, testbed: Testbed) -> None:
    facts = facts_of(Fragile(testbed.bare, value=value), testbed)
    assert facts.defended_clean == [1, 1, 1, 1, 1, 0]
    assert facts.defended_attacked == [0, 0, 0, 1, 1, 0]
    assert facts.reached == [1, 1, 1, 0, 0, 0]
    assert facts.noted["non_finite_attacked"] == [1, 1, 1, 0, 0, 0]
    assert "non_finite_clean" not in facts.noted
    assert warnings_of(facts, testbed.classes) == [
        "the defended model's logits are not finite for 50 % of the attacked images: counted as wrong"
    ]


def test_a_detector_may_say_that_logits_that_are_not_finite_reject(testbed: Testbed) -> None:
    facts = facts_of(Fragile(testbed.bare, rejects=True), testbed)
    assert facts.rejected_attacked == [1, 1, 1, 0, 0, 0]
    assert facts.defended_attacked == [1, 1, 1, 1, 1, 0]
    assert facts.reached == [0, 0, 0, 0, 0, 0]
    assert "non_finite_attacked" not in facts.noted


def test_a_bare_model_without_finite_logits_has_no_numbers(testbed: Testbed) -> None:
    broken = Testbed(replace(testbed.setting, memory=InMemory(testbed.dataset, Fragile(testbed.bare))))
    broken.images[1, 0, 0, 0] = 0
    with pytest.raises(NonFiniteLogitsError, match="for 1 of 6 clean images, first for image 1"):
        broken.check_model()


@pytest.mark.parametrize(("right", "warned"), [(10, True), (14, True), (18, False), (100, False)])
def test_clean_accuracy_that_is_no_better_than_chance_is_a_warning(right: int, warned: bool) -> None:
    correct = [1.0] * right + [0.0] * (100 - right)
    ones = [1] * 100
    facts = Facts(list(range(100)), ones, ones, correct, correct, correct, correct, correct, [0.0] * 100)
    (text,) = warnings_of(facts, 10) or [""]
    assert ("clean accuracy of the bare model" in text) == warned


def test_what_a_defense_learned_is_watched(testbed: Testbed) -> None:
    protected = at_work(make_defense("none"), testbed)
    learned = {"weight": torch.zeros(3)}
    with (
        pytest.raises(InterferenceError, match="what the defense learned"),
        unchanged(testbed, [protected.defense], protected.model, learned),
    ):
        learned["weight"].add_(1)


def test_the_bare_model_as_the_best_view_is_a_warning_only_where_another_view_was_tried() -> None:
    ones = [1.0] * 10
    facts = Facts(list(range(10)), [1] * 10, [1] * 10, ones, ones, ones, ones, ones, [0.0] * 10)
    for own, warned in (([None] * 8 + [1.0, 1.0], False), ([0.0] * 8 + [1.0, 1.0], True)):
        bare = [1.0] * 8 + [0.0] * 2
        texts = warnings_of(replace(facts, noted={"through bare": bare, "through own": own}), 10)
        assert any("crafted on the bare model" in text for text in texts) == warned


@dataclass(frozen=True)
class FindsTheCorner(Defense):
    """Takes the first pixel of every image for attacked, and the last one."""

    kind = "none"

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        return model

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        mask = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
        mask[:, 0, 0] = mask[:, -1, -1] = True
        return mask


def test_what_a_defense_finds_is_noted_for_the_images_that_were_changed(testbed: Testbed) -> None:
    crafted, clean = attacked(testbed), testbed.bare(testbed.images, testbed.streams)[None]
    protected = Protected(FindsTheCorner(), {}, testbed.bare, clean)
    facts = judge(make_attack("random-pixel"), protected, crafted, crafted, testbed)
    assert facts.noted[COVERED] == [1, 1, 1, None, None, None]
    wrong = round(1 / testbed.images[0, 0].numel(), 6)
    assert facts.noted[COVERED_WRONGLY] == [wrong, wrong, wrong, None, None, None]
    assert covered(facts).value == 1
    assert judge(make_attack("fgsm"), protected, crafted, crafted, testbed).noted == {}
