"""THE MAIN PATH: one cell, from images to an outcome."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch

from bench.contracts import Attack, Classifier, Plugin
from bench.core.checkpoints import Checkpoint
from bench.core.tensor_cache import cache_path, cached
from bench.engine.audit import audit
from bench.engine.craft import Crafted, Progress, craft
from bench.engine.interference import unchanged
from bench.engine.judge import certified, judge, refute, spare_lost, strongest
from bench.engine.protect import Protected, protect
from bench.engine.provenance import make_outcome
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.plugins.fingerprints import plugin_key
from bench.plugins.registry import make_attack
from bench.records.schema import Cell, Effort, Outcome

DRAWS: dict[Effort, int] = {"quick": 5, "standard": 20, "paper": 30}
"""Answers of a random defense that an adaptive attacker averages for each gradient or score (EOT)."""


@dataclass(frozen=True)
class Computed:
    """A cell's outcome, with the images behind it."""

    outcome: Outcome
    testbed: Testbed
    attack: Attack
    protected: Protected
    attacked: Crafted


def run_cell(cell: Cell, setting: Setting, progress: Progress) -> Computed:
    """Computes one cell. Any error is raised.

    Args:
        cell: what to compute.
        setting: where its inputs are on this machine.
        progress: called with the fraction done (0 … 1) and what is being done.
    """
    testbed = testbed_of(setting)
    testbed.check_model()
    attack = make_attack(setting.local(cell.attack), cell.effort)
    attack.check(testbed.image_shape, testbed.classes)  # before any training
    protected = protect(testbed, cell.defense, progress)
    with unchanged(testbed, (attack, protected.defense), protected.model, protected.learned):
        return evaluate(cell, testbed, protected, progress, attack)


def evaluate(
    cell: Cell, testbed: Testbed, protected: Protected, progress: Progress, attack: Attack | None = None
) -> Computed:
    """The experiment of this benchmark: one attack on one defense that is at work.

    Args:
        cell: what to compute.
        testbed: images, bare model and random streams of the cell.
        protected: the defense of the cell.
        progress: called with the fraction done (0 … 1) and what is being done.
        attack: the attack of the cell, if it is made already.
    """
    started = perf_counter()
    attack = attack or make_attack(testbed.setting.local(cell.attack), cell.effort)

    oblivious = attacked = _crafted(attack, {"bare": testbed.bare}, None, cell, testbed, progress)
    if cell.tier == "adaptive":
        attacked = _crafted(attack, _views(attack, protected, testbed), protected, cell, testbed, progress)
        attacked = spare_lost(attacked, protected, testbed)

    progress(1, "judging")
    for crafted in (oblivious, attacked):
        audit(attack, testbed.images, crafted.adversarial, testbed.indices.tolist())
    facts = judge(attack, protected, oblivious, attacked, testbed)
    facts.certified = certified(attack, protected, testbed)
    refute(facts, attack, protected)

    seconds = attacked.seconds | {"train": protected.cost.get("seconds", 0)}
    seconds["total"] = perf_counter() - started
    outcome = make_outcome(cell, testbed, attack, protected, attacked, facts, DRAWS[cell.effort], seconds)
    return Computed(outcome, testbed, attack, protected, attacked)


def _views(attack: Attack, protected: Protected, testbed: Testbed) -> dict[str, Classifier]:
    """The models through which an adaptive attacker crafts.

    Gradients come from the defense's views, scores from the defended model. The bare model is one of them: an attacker
    who knows the defense knows the model behind it, and transfer is sometimes the stronger attack.
    """
    if protected.model is testbed.bare:
        return {"bare": testbed.bare}
    own = {"defended": protected.model}
    if attack.access == "gradients":
        own = protected.defense.attacker_views(testbed.bare, protected.learned)
    return own | {"bare": testbed.bare}


def _crafted(
    attack: Attack,
    views: dict[str, Classifier],
    protected: Protected | None,
    cell: Cell,
    testbed: Testbed,
    progress: Progress,
) -> Crafted:
    """Adversarial images through each view (the strongest for each image), from the cache if they were made before.

    After a kill it goes on after the last saved batch. A view that is the bare model is crafted once for all defenses.
    """
    draws = DRAWS[cell.effort]
    defended, learned = (protected.model, protected.learned) if protected else (None, None)
    plugins: list[Plugin] = [attack, protected.defense] if protected else [attack]

    def made(name: str, view: Classifier) -> Crafted:
        through = "" if view is testbed.bare or protected is None else f" through {name}"
        inputs = testbed.fingerprints | {
            "model": testbed.setting.model,
            "attack": plugin_key(attack),
            "view": f"{name} of {plugin_key(protected.defense)}" if through and protected else "bare",
            "goal": f"{cell.goal} seed {cell.seed}",
            "draws": str(draws if view.random else 1),
            "engine": f"torch {torch.__version__} {testbed.device.type}",
        }

        checkpoint = Checkpoint(cache_path("crafted", inputs).with_suffix(".pt"))

        def tell(share: float, doing: str) -> None:
            progress(share, doing + through)

        def make() -> dict[str, torch.Tensor]:
            with unchanged(testbed, plugins, defended, learned):  # else wrong images would reach the cache
                return craft(attack, view, testbed, draws, tell, checkpoint).tensors()

        tensors = cached("crafted", inputs, make)
        checkpoint.drop()
        return Crafted.of_tensors(tensors, testbed.device)

    crafted = {name: made(name, view) for name, view in views.items()}
    return strongest(crafted, protected.model if protected else testbed.bare, testbed)
