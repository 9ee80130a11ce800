"""What a plan will cost: from records, scaled to this machine, each shared piece of work once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.engine import estimate as module
from bench.engine.estimate import Forecast, _Here, estimate
from bench.engine.plan import CellTask, LatencyTask, Plan, plan
from bench.engine.setting import Setting
from bench.plugins.registry import make_attack
from bench.records.schema import Latency
from bench.records.store import Store

from ..builders import facts, outcome

SETTING = Setting("photos", "photos-cnn", images=10)
FORWARD = 0.001
"""Seconds of a pass for an image, here; on the machine of the records it took half of it."""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Records of 20 images: 2 s for images of the bare model, 8 s with those through JPEG; JPEG takes three passes."""
    monkeypatch.setattr(module, "_timed", lambda testbed: _Here(len(testbed), FORWARD, 100.0))
    store = Store(tmp_path / "results")
    store.prepare()
    for defense, ratio in (("none", 1.0), ("jpeg", 3.0)):
        batches = {32: {"bare": 1000 * FORWARD / 2, "defended": ratio, "ratio": ratio}}
        store.save(Latency("photos", "photos-cnn", defense, batches, "m"))
    for defense, tier, seconds in (("none", "oblivious", 2.0), ("jpeg", "adaptive", 8.0)):
        record = outcome(
            "fgsm",
            defense,
            tier,
            facts(0.5, n=20),
            images=20,
            dataset="photos",
            seconds={"attack": seconds, "learn": 0.0},
        )
        store.save(record)
    return store


def planned(store: Store, attacks: str, defenses: str) -> Plan:
    return plan(SETTING, attacks, defenses, ("oblivious", "adaptive"), [0], "standard", store)


def costs(forecast: Forecast) -> dict[tuple[str, str], float]:
    cells = {task.cell: seconds for task, seconds in forecast.seconds.items() if isinstance(task, CellTask)}
    return {(cell.defense, cell.tier): seconds for cell, seconds in cells.items()}


def test_the_time_of_records_is_scaled_to_the_images_and_the_speed_here(store: Store) -> None:
    forecast = estimate(planned(store, "fgsm", "jpeg"), store)
    judging = {defense: 4 * 10 * FORWARD * ratio for defense, ratio in (("none", 1), ("jpeg", 3))}
    assert costs(forecast) == pytest.approx(
        {
            ("none", "oblivious"): judging["none"] + 2.0 / 20 * 10 * 2,  # half as many images, at half the speed
            ("none", "adaptive"): judging["none"],  # the same images
            ("jpeg", "oblivious"): judging["jpeg"],  # as well
            ("jpeg", "adaptive"): judging["jpeg"] + (8.0 - 2.0) / 20 * 10 * 2,
        }
    )
    assert not forecast.rough
    assert forecast.mib > 100


def test_what_no_record_is_like_is_marked_and_costs_more_with_more_steps(store: Store) -> None:
    few, many = (estimate(planned(store, f"ifgsm:steps={steps}", "none"), store) for steps in (10, 100))
    assert {task for task in few.seconds if isinstance(task, CellTask)} == few.rough
    judging = 4 * 10 * FORWARD
    first = [costs(forecast)["none", "oblivious"] - judging for forecast in (few, many)]
    assert first[1] == pytest.approx(10 * first[0])


def test_images_that_were_crafted_before_cost_nothing(store: Store) -> None:
    whole = planned(store, "fgsm", "none")
    record = outcome("fgsm", "none", "oblivious", facts(0.5, n=10), images=10, dataset="photos")
    rest = replace(whole, tasks=[task for task in whole.tasks if getattr(task, "cell", None) != record.cell])
    rest.done.append(record)
    assert costs(estimate(rest, store)) == pytest.approx({("none", "adaptive"): 4 * 10 * FORWARD})


def test_workers_share_the_work_but_no_task(store: Store) -> None:
    tasks = [LatencyTask("d", "m", name, SETTING) for name in "abc"]
    forecast = Forecast(dict(zip(tasks, (1.0, 2.0, 9.0), strict=True)), {}, {}, frozenset(), 5.0, 100.0)
    assert forecast.total(1) == 17
    assert forecast.total(2) == 14
    assert Forecast({}, {}, {}, frozenset(), 5.0, 1.0).total(1) == 0


def test_a_task_needs_what_it_shares_with_others_until_one_of_them_has_made_it(store: Store) -> None:
    record = outcome("fgsm", "adversarial-training", "oblivious", facts(0.5, n=20), images=20, dataset="photos")
    store.save(replace(record, seconds={"attack": 2.0, "learn": 0.0}, training={"seconds": 70.0}))
    forecast = estimate(planned(store, "fgsm", "adversarial-training"), store)
    task, other = (
        task for task in forecast.seconds if isinstance(task, CellTask) and task.cell.defense == "adversarial-training"
    )
    assert set(forecast.shared[task]) == set(forecast.shared[other])
    images, training = forecast.shared[task]
    own = forecast.own[task]
    assert forecast.needed(task, ()) == pytest.approx(own + forecast.shared[task][images] + 140)  # at half the speed
    assert forecast.needed(task, {images}) == pytest.approx(own + 140)
    assert forecast.needed(task, {images, training}) == own


def test_an_attack_that_says_nonsense_of_its_steps_is_left_to_its_cell(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = planned(store, "ifgsm:steps=7", "none")
    attack = make_attack("ifgsm")
    object.__setattr__(attack, "steps", "many")
    monkeypatch.setattr(module, "make_attack", lambda text, effort: attack)
    assert costs(estimate(whole, store))["none", "oblivious"] == pytest.approx(4 * 10 * FORWARD)
