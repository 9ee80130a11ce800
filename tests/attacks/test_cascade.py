"""Ensembles: what a stage leaves goes on, what it fools does not, and the record says which stage it was."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contracts import Attack, Goal, InputError, Linf, Model, Streams
from bench.plugins.registry import make_attack

from ..toys import SmoothClassifier, images_of, model_of, streams

cascade: Any = importlib.import_module("bench.attacks._cascade")


@dataclass(frozen=True)
class Noise(Attack):
    """Random images, the best of so many."""

    tries: int
    title = "Noise"
    access = "scores"

    @property
    def budget(self) -> Linf:
        return Linf(1.0)

    def perturb(self, model: Model, images: Tensor, goal: Goal, rng: Streams) -> Tensor:
        best, lowest = images, torch.full((len(images),), torch.inf).double()
        for _ in range(self.tries):
            tried = rng.uniform(*images.shape[1:]).to(images)
            margins = goal.margin(model(tried))
            best = torch.where((margins < lowest)[:, None, None, None], tried, best)
            lowest = torch.minimum(margins, lowest)
        return best


class Three(cascade.Cascade):  # type: ignore[misc]  # loaded by name
    """A try, a try towards the likeliest wrong class, and nine tries."""

    title = "Three"
    access = "scores"
    stages = (cascade.Stage(Noise(1)), cascade.Stage(Noise(1), 1), cascade.Stage(Noise(9)))


def setting(targeted: bool = False, number: int = 40) -> tuple[SmoothClassifier, Tensor, Goal]:
    images, classifier = images_of(number, 3, 6, 6), SmoothClassifier(108, 4)
    labels = classifier(images, streams(number)).argmax(1)
    return classifier, images, Goal(labels, (labels + 1) % 4 if targeted else None)


def attacked(attack: Attack, targeted: bool) -> tuple[Tensor, Model, Tensor]:
    classifier, images, goal = setting(targeted)
    model = model_of(classifier, len(images))
    adversarial = attack(model, images, goal, streams(len(images)))
    return adversarial, model, goal.reached(classifier(adversarial, streams(len(images))))


@pytest.mark.parametrize("targeted", [False, True])
def test_the_record_tells_which_stage_fooled_an_image_and_none_where_all_failed(targeted: bool) -> None:
    _, model, fooled = attacked(Three(), targeted)
    assert torch.equal(model.facts["stage"].isfinite(), fooled)
    assert set(model.facts["stage"][fooled].int().tolist()) == ({0, 2} if targeted else {0, 1, 2})


def test_an_image_that_a_stage_fools_goes_into_no_further_stage() -> None:
    _, model, _ = attacked(Three(), False)
    # Each stage asks once more to see who is fooled; the targeted one also asks which class is the likeliest.
    cost = {0: 2, 1: 2 + 3, 2: 2 + 3 + 10}
    for stage, queries in cost.items():
        assert (model.forwards[model.facts["stage"] == stage] == queries).all()
    assert (model.forwards[model.facts["stage"].isnan()] == cost[2]).all()


def test_where_all_stages_fail_the_lowest_margin_is_returned() -> None:
    classifier, _, goal = setting(True)
    adversarial, model, fooled = attacked(Three(), True)
    margins = goal.margin(classifier(adversarial, streams(40)))
    once = attacked(Noise(1), True)[0]
    assert not fooled.all()
    assert margins[~fooled].mean() < goal.margin(classifier(once, streams(40)))[~fooled].mean()
    assert torch.equal(model.facts["stage"].isnan(), ~fooled)


def test_the_batch_changes_no_bit() -> None:
    classifier, images, goal = setting()
    whole, _, _ = attacked(Three(), False)
    parts = [
        Three()(Model(classifier, streams(40, 99)[part]), images[part], goal[part], streams(40)[part])
        for part in (slice(0, 5), slice(5, 40))
    ]
    assert torch.equal(whole, torch.cat(parts))


def test_progress_runs_from_0_to_1_once() -> None:
    classifier, images, goal = setting(True, 4)
    heard: list[float] = []
    model = Model(classifier, streams(4, 99), progress=heard.append)
    make_attack("autopatch:area=0.03")(model, images, goal, streams(4))
    assert heard == sorted(heard)
    assert max(heard) <= 1


@pytest.mark.parametrize("text", ["autopatch:area=0.06", "autopatch:area=0.06,shape=disc", "autopixel:pixels=2"])
def test_the_ensembles_keep_their_budget_and_fool_what_their_first_stage_fools(text: str) -> None:
    classifier, images, goal = setting()
    attack = make_attack(text)
    adversarial, _, fooled = attacked(attack, False)
    first = attack.stages[0].attack  # type: ignore[attr-defined]
    alone = first(model_of(classifier, 40), images, goal, streams(40).derive("stage 0"))
    assert attack.allows(images, adversarial).all()
    assert fooled[goal.reached(classifier(alone, streams(40)))].all()
    assert all(str(stage.attack.budget) == str(attack.budget) for stage in attack.stages)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["autopatch:version=2", "autopatch:area=0", "autopixel:version=0", "autopixel:pixels=0"]
)
def test_parameters_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        make_attack(text)
