"""The adaptive attacker: who is attacked through which view, what is submitted, and what the record says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.contracts import (
    Artifact,
    Attack,
    Classifier,
    Defense,
    Goal,
    Images,
    Linf,
    Logits,
    Model,
    Streams,
    UniversalAttack,
    Wrapped,
)
from bench.core.checkpoints import Checkpoint
from bench.data.dataset import Dataset, Split
from bench.engine.adaptive import in_turn, one_for_all
from bench.engine.craft import Crafted, craft
from bench.engine.protect import Protected, at_work
from bench.engine.run import evaluate, run_cell
from bench.engine.setting import InMemory, Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.plugins.registry import make_attack, make_defense
from bench.records.schema import Cell

COUNT = 8
BRIGHT, DARK = 1.0, 0.0


class ByBrightness(Classifier):
    """Class 1 if the image's corner is bright, and nothing finite where it is black."""

    num_classes = 2

    def forward(self, images: Images, rng: Streams) -> Logits:
        bright = images[:, 0, 0, 0]
        logits = torch.stack([0.5 - bright, bright - 0.5], 1)
        return torch.where(bright[:, None] == 0, torch.nan, logits)


class Lucky(ByBrightness):
    """As its base, but of a bright corner it is never sure."""

    random = True

    def forward(self, images: Images, rng: Streams) -> Logits:
        logits = super().forward(images, rng)
        return torch.where(images[:, :1, 0, 0] > 0.9, rng.uniform(2), logits)


def testbed_with(training: int, evaluated: int) -> Testbed:
    """Grey images of which the training images have one label, the evaluated images another."""

    def split(label: int) -> Split:
        images = torch.full((COUNT, 3, 4, 4), 64 + 128 * label, dtype=torch.uint8)
        return Split(torch.full((COUNT,), label), lambda rows: images[rows])

    dataset = Dataset("toy", ("dark", "bright"), split(training), split(evaluated))
    return Testbed(Setting("toy", "toy", memory=InMemory(dataset, ByBrightness())))


@pytest.fixture
def testbed() -> Testbed:
    """Images that are dark, and classified as such."""
    return testbed_with(0, 0)


def made(testbed: Testbed, corner: float, rows: Tensor) -> Crafted:
    """What an attack would return that gives these images this corner."""
    adversarial = testbed.images[rows].clone()
    adversarial[:, :, 0, 0] = corner
    ones = torch.ones(len(rows), dtype=torch.int64)
    noted = {"stage": ones.float()}
    return Crafted(adversarial, ones.bool(), ones.bool(), ones, ones, noted, {}, {"attack": 1.0})


def defended_by(model: Classifier, testbed: Testbed) -> Protected:
    return replace(at_work(make_defense("none"), testbed), model=model)


def turns(
    testbed: Testbed, bare: list[float], model: Classifier, attack: str = "random-pixel"
) -> tuple[Crafted, dict[str, list[int]]]:
    """The submission after a bare view that gives images these corners, one that fails and one that succeeds."""
    asked: dict[str, list[int]] = {}
    crafted = made(testbed, 0.25, testbed.rows)
    crafted.adversarial[:, 0, 0, 0] = torch.tensor(bare)

    def view(name: str, corner: float) -> Callable[[Tensor], Crafted]:
        def through(rows: Tensor) -> Crafted:
            asked[name] = rows.tolist()
            return made(testbed, corner, rows)

        return through

    views = {"weak": view("weak", 0.3), "strong": view("strong", 0.8), "late": view("late", 0.8)}
    return in_turn(make_attack(attack), crafted, views, defended_by(model, testbed), testbed), asked


def test_an_image_that_is_broken_costs_nothing_more(testbed: Testbed) -> None:
    chosen, asked = turns(testbed, [0.7] * 3 + [0.25] * 5, ByBrightness())
    assert asked == {"weak": [3, 4, 5, 6, 7], "strong": [3, 4, 5, 6, 7]}
    assert chosen.forwards.tolist() == [1] * 3 + [3] * 5
    assert (chosen.adversarial[:, 0, 0, 0] > 0.5).all()


def test_the_record_says_which_view_broke_an_image_and_which_were_not_tried(testbed: Testbed) -> None:
    noted = turns(testbed, [0.7] * 3 + [0.25] * 5, ByBrightness())[0].noted
    assert noted["through bare"].tolist() == [1] * 3 + [0] * 5
    assert noted["through strong"][3:].tolist() == [1] * 5
    assert noted["through strong"][:3].isnan().all()
    assert "through late" not in noted
    assert noted["stage"].tolist() == [1] * 8


def test_of_views_that_all_fail_the_nearest_to_success_is_submitted(testbed: Testbed) -> None:
    crafted = made(testbed, 0.1, testbed.rows)
    views = {name: lambda rows, corner=corner: made(testbed, corner, rows) for name, corner in (("a", 0.4), ("b", 0.3))}
    chosen = in_turn(make_attack("random-pixel"), crafted, views, defended_by(ByBrightness(), testbed), testbed)
    assert torch.equal(chosen.adversarial[:, 0, 0, 0], torch.full((COUNT,), 0.4))


def test_an_answer_that_is_not_finite_ends_the_attack(testbed: Testbed) -> None:
    chosen, asked = turns(testbed, [0.0] * 4 + [0.25] * 4, ByBrightness())
    assert asked["weak"] == [4, 5, 6, 7]
    assert (chosen.adversarial[:4, 0, 0, 0] == 0).all()


def test_one_lucky_draw_of_a_random_defense_ends_no_attack(testbed: Testbed) -> None:
    _, asked = turns(testbed, [0.95] * COUNT, Lucky())
    assert asked["weak"] == list(range(COUNT))


def test_an_attack_whose_results_depend_on_the_batch_gets_all_images(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(make_attack("random-pixel")), "per_image", False)
    _, asked = turns(testbed, [0.7] * 3 + [0.25] * 5, ByBrightness())
    assert asked == {"weak": list(range(COUNT)), "strong": list(range(COUNT))}


def test_a_success_in_every_draw_comes_before_one_that_is_not_finite_in_some(testbed: Testbed) -> None:
    class Erratic(ByBrightness):
        random = True

        def forward(self, images: Images, rng: Streams) -> Logits:
            logits, bright = super().forward(images, rng), images[:, :1, 0, 0]
            return torch.where((bright > 0.2) & (bright < 0.28) & (rng.uniform(1) < 0.5), torch.nan, logits)

    chosen, _ = turns(testbed, [0.25] * COUNT, Erratic())
    assert torch.equal(chosen.adversarial[:, 0, 0, 0], torch.full((COUNT,), 0.8))


@pytest.mark.parametrize(("per_image", "times"), [(True, 1), (False, 2)])
def test_only_an_attack_whose_results_depend_on_the_batch_is_made_again_for_another_batch_size(
    per_image: bool, times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(type(make_attack("random-pixel")), "per_image", per_image)
    sizes = list[int]()

    def counted(attack: Attack, view: Classifier, testbed: Testbed, *rest: Any) -> Crafted:
        sizes.append(testbed.batch_size)
        return craft(attack, view, testbed, *rest)

    monkeypatch.setattr("bench.engine.run.craft", counted)
    for size in (3, 5, 3):
        setting = replace(testbed_with(0, 0).setting, batch_size=size)
        run_cell(Cell("toy", "toy", "random-pixel", "none", "oblivious"), setting, lambda share, doing: None)
    assert sizes == [3, 5][:times]


@dataclass(frozen=True)
class Corner(UniversalAttack):
    """Paints the corner of every image."""

    training_images: int = COUNT
    title = "Corner"
    access = "gradients"

    @property
    def budget(self) -> Linf:
        return Linf(1.0)

    def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Artifact:
        return {"corner": torch.tensor(BRIGHT)}

    def apply(self, artifact: Artifact, images: Images, goal: Goal, rng: Streams) -> Images:
        painted = images.clone()
        painted[:, :, 0, 0] = artifact["corner"]
        return painted


@pytest.mark.parametrize(("training", "best"), [(0, "bright"), (1, "dark")])
def test_the_artifact_is_chosen_on_training_images(training: int, best: str) -> None:
    testbed, attack = testbed_with(training, 1 - training), Corner()
    colours = {"bright": 0.9, "dark": 0.1}
    crafted = {name: replace(made(testbed, colour, testbed.rows), artifact={"corner": torch.tensor(colour)})
               for name, colour in colours.items()}  # fmt: skip
    protected = defended_by(ByBrightness(), testbed)

    def applied(given: Attack) -> Crafted:
        everything = (testbed, testbed.rows, 1, lambda share, doing: None, Checkpoint(None))
        return craft(given, protected.model, *everything)

    chosen = one_for_all(attack, crafted, applied, protected, testbed)
    assert torch.equal(chosen.adversarial[:, 0, 0, 0], torch.full((COUNT,), colours[best]))
    assert chosen.noted[f"through {best}"].tolist() == [1] * COUNT
    assert sum(name.startswith("through ") for name in chosen.noted) == 1


SETTING = Setting("photos", "photos-cnn", images=30)
CELL = Cell("photos", "photos-cnn", "", "jpeg", "adaptive", images=30)


class Undefended(Wrapped):
    """The bare model, as if it were a defended one."""

    def forward(self, images: Images, rng: Streams) -> Logits:
        return self.model(images, rng)


class Blind(Wrapped):
    """Its gradient leads nowhere."""

    def forward(self, images: Images, rng: Streams) -> Logits:
        return self.model(images.detach(), rng) + 0 * images.sum()


@dataclass(frozen=True)
class Decoy(Defense):
    """Does nothing, and calls a useless view of its own the bare one."""

    kind = "trained"
    title = "Decoy"

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        return Undefended(model)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        return {"bare": Blind(model)}


@pytest.mark.parametrize("attack", ["ifgsm:eps=2/255,steps=3", "patch:quick,steps=5,restarts=2,area=0.1"])
def test_no_view_of_a_defense_takes_the_place_of_the_bare_model(attack: str) -> None:
    testbed = testbed_of(SETTING)
    cell = replace(CELL, attack=attack, defense="decoy")
    facts = evaluate(cell, testbed, at_work(Decoy(), testbed), lambda share, doing: None).outcome.facts
    assert facts is not None
    assert facts.defended_attacked == facts.bare_attacked
    assert sum(facts.bare_attacked) < sum(facts.bare_clean)
    assert 1 in facts.noted["through bare"]


@dataclass(frozen=True)
class OnlyBare(Defense):
    """Offers nothing but the model without it."""

    kind = "trained"
    title = "Only bare"

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        return Undefended(model)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        return {"bare": model}


def test_a_defense_that_offers_only_the_bare_model_is_attacked_itself() -> None:
    cell = replace(CELL, attack="ifgsm:eps=1/255,steps=1", defense="only-bare")
    testbed = testbed_of(SETTING)
    facts = evaluate(cell, testbed, at_work(OnlyBare(), testbed), lambda share, doing: None).outcome.facts
    assert facts is not None
    assert "through defended" in facts.noted


def test_all_images_of_a_universal_attack_have_the_same_patch() -> None:
    attack = "patch:quick,steps=5,restarts=2,rotation=0,scale=1:1,shape=square,area=0.05,location=fixed,at=4:6"
    done = run_cell(replace(CELL, attack=attack), SETTING, lambda share, doing: None)
    adversarial, changes = done.attacked.adversarial, done.attacked.adversarial != done.testbed.images
    attacked = changes.flatten(1).any(1)
    assert attacked.sum() >= 20
    covered = changes[attacked].any(1).double().mean(0) > 0.5
    assert covered.sum() >= 0.04 * covered.numel()
    patches = adversarial[attacked][:, :, covered]
    assert (patches == patches[0]).all()
    facts = done.outcome.facts
    assert facts is not None
    views = {name for name, values in facts.noted.items() if name.startswith("through ") and 1 in values}
    assert len(views) == 1


@pytest.mark.parametrize("batch_size", [7, 128])
def test_the_cascade_breaks_the_images_that_any_view_breaks(
    batch_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    setting = replace(SETTING, batch_size=batch_size)
    cell = replace(CELL, attack="ifgsm:eps=2/255,steps=3")
    facts = run_cell(cell, setting, lambda share, doing: None).outcome.facts
    assert facts is not None
    testbed, attack = testbed_of(setting), make_attack(cell.attack)
    protected = at_work(make_defense("jpeg"), testbed)
    views = protected.defense.attacker_views(testbed.bare, {}) | {"bare": testbed.bare}
    broken = torch.zeros(len(testbed), dtype=torch.bool)
    for view in views.values():
        every = craft(attack, view, testbed, testbed.rows, 1, lambda share, doing: None, Checkpoint(None))
        broken |= testbed.goal.reached(protected.model(every.adversarial, testbed.streams))
    assert facts.defended_attacked == (~broken).double().tolist()
    assert 0 < broken.sum() < len(testbed)
