"""The main path on real images: the default data set, its classifier, and small attacks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.contracts import Classifier, Goal, Images, NotApplicableError, Streams
from bench.engine.adaptive import strongest
from bench.engine.craft import Crafted
from bench.engine.judge import judge, spare_lost
from bench.engine.protect import Protected
from bench.engine.run import run_cell
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.plugins.registry import make_attack, make_defense
from bench.records.schema import Cell, Outcome

SETTING = Setting("photos", "photos-cnn", images=40)
CELL = Cell("photos", "photos-cnn", "ifgsm:eps=4/255,steps=5", "jpeg", "adaptive", images=40)


def computed(cell: Cell, setting: Setting = SETTING) -> Outcome:
    return run_cell(cell, setting, lambda share, doing: None).outcome


def lasting(outcome: Outcome) -> Any:
    """A record without what may differ when it is computed again."""
    tree = asdict(outcome)
    tree.pop("seconds")
    tree.pop("date")
    return json.dumps(tree)


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))


def test_the_facts_of_all_images_are_there_and_agree_with_each_other() -> None:
    outcome = computed(CELL)
    facts = outcome.facts
    assert facts is not None
    assert outcome.status == "ok"
    lists = [facts.index, facts.label, facts.eligible, facts.bare_clean, facts.defended_clean, facts.defended_attacked]
    assert {len(one) for one in lists} == {40}
    assert facts.eligible == facts.defended_clean
    pairs = zip(facts.reached, facts.defended_attacked, facts.eligible, strict=True)
    assert all(reached == (1 - right) * eligible for reached, right, eligible in pairs)
    assert 5 < outcome.queries["backwards_mean"] < 10  # five steps on the bare model, five through JPEG where they fail
    assert {outcome.facts.label.count(one) for one in range(10)} == {4}  # type: ignore[union-attr]


def test_a_cell_computed_twice_is_the_same_record(
    empty_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = computed(replace(CELL, attack="patch:quick,steps=3"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "another"))
    testbed_of.cache_clear()
    computed(replace(CELL, attack="occlusion"))  # another order of the cells
    second = computed(replace(CELL, attack="patch:quick,steps=3"))
    assert lasting(first) == lasting(second)


def test_the_batch_size_changes_no_fact_of_nearly_any_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    records = []
    for size in (7, 64):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / str(size)))
        records.append(computed(CELL, replace(SETTING, batch_size=size)).facts)
    first, second = records
    assert first is not None
    assert second is not None
    same = [a == b for a, b in zip(first.defended_attacked, second.defended_attacked, strict=True)]
    assert sum(same) >= 0.99 * len(same)


def test_without_a_defense_both_attackers_are_the_same() -> None:
    cells = [replace(CELL, defense="none", tier=tier) for tier in ("oblivious", "adaptive")]
    first, second = (computed(cell).facts for cell in cells)
    assert first == second


def test_oblivious_images_are_crafted_once_for_all_defenses(empty_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    from bench.engine import run

    craft = run.craft

    def counted(attack: Any, view: Any, *others: Any) -> Any:
        asked.append(type(view).__name__)
        return craft(attack, view, *others)

    monkeypatch.setattr(run, "craft", counted)
    for defense in ("none", "jpeg", "lgs"):
        computed(replace(CELL, defense=defense, tier="oblivious"))
    assert asked == ["Net"]


@pytest.mark.parametrize(
    "attack", ["pixel:population=4,generations=1", "patch:quick,restarts=1,steps=2,training_images=20"]
)
def test_a_killed_cell_goes_on_behind_its_last_batch(
    attack: str, empty_cache: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = replace(CELL, attack=attack, defense="jpeg")
    setting = replace(SETTING, batch_size=8)
    code = (
        "import os, signal, torch\n"
        "torch.set_num_threads(1)\n"
        "from bench.core import checkpoints\n"
        "from bench.engine import craft\n"
        "from bench.records.schema import Cell\n"
        "from bench.engine.run import run_cell\n"
        "from bench.engine.setting import Setting\n"
        "checkpoints.SECONDS, real, calls = 0.0, craft._batch, []\n"
        "def batch(*given):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return real(*given)\n"
        "craft._batch = batch\n"
        f"run_cell({cell!r}, {setting!r}, lambda share, doing: None)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("crafted-*.pt"))) == 1

    from bench.engine import craft

    batch, learn, firsts, learnt = craft._batch, craft._learn, [], []
    monkeypatch.setattr(craft, "_batch", lambda *given: firsts.append(int(given[3][0])) or batch(*given))
    monkeypatch.setattr(craft, "_learn", lambda *given: learnt.append(1) or learn(*given))
    resumed = computed(cell, setting)
    assert firsts[:2] == [24, 32], "the first view goes on"
    assert firsts[2] < 8, "the second begins"
    assert len(learnt) == attack.startswith("patch"), "what the first view learned was learned again"
    assert not list(tmp_path.glob("*.pt")), "the state stayed behind"

    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "another"))
    assert lasting(resumed) == lasting(computed(cell, setting))


@pytest.mark.parametrize(
    ("attack", "defense"),
    [(CELL.attack, "lgs"), (CELL.attack, "jpeg"), ("sparse-rs:queries=100,pixels=10", "bit-depth")],
)
def test_no_image_withstands_the_informed_attacker_that_the_other_one_turns(
    attack: str, defense: str, empty_cache: None
) -> None:
    right = {}
    for tier in ("oblivious", "adaptive"):
        facts = computed(replace(CELL, attack=attack, defense=defense, tier=tier)).facts  # type: ignore[arg-type]
        assert facts is not None
        right[tier] = facts.defended_attacked
    assert all(adaptive <= oblivious for adaptive, oblivious in zip(right["adaptive"], right["oblivious"], strict=True))
    assert sum(right["adaptive"]) < sum(right["oblivious"])


def test_a_rejection_counts_as_a_defense_only_where_the_image_was_changed() -> None:
    testbed = testbed_of(replace(SETTING, images=10))

    class Refuser(Classifier):
        num_classes, rejects = testbed.classes, True

        def forward(self, images: Images, rng: Streams) -> torch.Tensor:
            return torch.eye(testbed.classes + 1)[torch.full((len(images),), testbed.classes)]

    model = Refuser()
    clean = model(testbed.images, testbed.streams)[None]
    protected = Protected(make_defense("squeeze"), {}, model, clean)
    adversarial = testbed.images.clone()
    adversarial[:4, :, 0, 0] = 1 - adversarial[:4, :, 0, 0].round()
    nothing = torch.zeros(10)
    crafted = Crafted(adversarial, nothing == 0, nothing > 0, nothing, nothing)
    attack = make_attack("random-pixel")

    facts = judge(attack, protected, crafted, crafted, testbed)
    assert facts.defended_attacked == facts.defended_attacked_8bit == [1.0] * 4 + [0.0] * 6
    assert facts.rejected_attacked == [1.0] * 10
    spared = spare_lost(crafted, protected, testbed)
    assert torch.equal(spared.adversarial, testbed.images)
    assert judge(attack, protected, crafted, spared, testbed).defended_attacked == [0.0] * 10
    wanted = testbed_of(replace(SETTING, images=10, goal="targeted:3"))
    assert torch.equal(spare_lost(crafted, protected, wanted).adversarial, adversarial)


@pytest.mark.parametrize("defense", ["squeeze", "jpeg"])
def test_an_informed_attack_never_makes_an_image_right(defense: str) -> None:
    facts = computed(replace(CELL, attack="sparse-rs:queries=10,pixels=4", defense=defense)).facts
    assert facts is not None
    assert all(after <= before for after, before in zip(facts.defended_attacked, facts.defended_clean, strict=True))


def test_a_targeted_cell_counts_only_its_target() -> None:
    setting = replace(SETTING, goal="targeted:3")
    facts = computed(replace(CELL, goal="targeted:3", defense="none"), setting).facts
    assert facts is not None
    assert not any(eligible for eligible, label in zip(facts.eligible, facts.label, strict=True) if label == 3)
    assert sum(facts.reached) <= sum(1 - right for right in facts.defended_attacked)


def test_random_targets_are_other_classes_and_fixed_by_the_seed() -> None:
    testbed = testbed_of(replace(SETTING, goal="targeted"))
    assert testbed.goal.targets is not None
    assert (testbed.goal.targets != testbed.labels).all()
    assert torch.equal(testbed.goal.targets, Testbed(replace(SETTING, goal="targeted")).goal.targets)  # type: ignore[arg-type]


def test_a_universal_attack_wants_one_target_for_all() -> None:
    cell = replace(CELL, attack="patch:quick,steps=2", goal="targeted", defense="none")
    with pytest.raises(NotApplicableError, match="needs one class"):
        computed(cell, replace(SETTING, goal="targeted"))


def test_a_random_defense_is_asked_ten_times_and_its_share_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.engine.protect import fresh_answers

    class Coin(Classifier):
        num_classes = 2
        random = True

        def forward(self, images: Images, rng: Streams) -> torch.Tensor:
            return rng.uniform(2)

    logits = fresh_answers(Coin(), torch.zeros(30, 3, 2, 2), Streams.of(0, torch.arange(30)))
    assert logits.shape == (10, 30, 2)
    share = (logits.argmax(-1) == 0).double().mean(0)
    assert 0.3 < share.mean() < 0.7
    assert Goal(torch.zeros(30, dtype=torch.int64)).reached(logits).double().mean() < 0.05


def test_the_real_cifar_classifier_gets_470_of_500_real_images(shared: Path) -> None:
    setting = Setting(
        f"folder:{shared}/data/cifar10-500", "resnet20", weights=shared / "models" / "cifar10-resnet20.safetensors"
    )
    testbed = Testbed(setting)
    assert (testbed.bare_clean.argmax(1) == testbed.labels).sum() == 470


def test_an_oracle_is_judged_with_the_originals_beside_the_attacked_images() -> None:
    cell = Cell("photos", "photos-cnn", "lavan:area=0.2,steps=20", "dw-oracle", "oblivious", images=20)
    done = run_cell(cell, Setting("photos", "photos-cnn", images=20), lambda share, doing: None)
    attacked, testbed, facts = done.attacked.adversarial, done.testbed, done.outcome.facts
    assert facts is not None
    shown = done.protected.model(torch.cat([attacked, testbed.images], 1), testbed.streams)
    assert facts.defended_attacked == (shown.argmax(1) == testbed.labels).double().tolist()
    assert sum(facts.defended_attacked) > sum(facts.bare_attacked), "the attack shows, and the oracle mends"


def test_a_gradient_has_vanished_only_if_none_of_the_views_has_one() -> None:
    testbed = testbed_of(SETTING)
    count = len(testbed)

    def through(*zero: float) -> Crafted:
        ones = torch.ones(count)
        shares = torch.tensor(zero).repeat(count)[:count]
        return Crafted(testbed.images, ones.bool(), ones.bool(), ones, ones, {"zero_gradient": shares})

    views = {"bare": through(0, 0), "plain": through(1, 1), "tempered": through(0, 1)}
    margins = dict.fromkeys(views, torch.zeros(count))
    noted = strongest(views, margins, torch.zeros(count).bool()).noted
    assert noted["zero_gradient"].tolist() == [0, 1] * (count // 2)
