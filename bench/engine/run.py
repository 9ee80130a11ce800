"""THE MAIN PATH: one cell, from images to an outcome."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from bench.contracts import Attack, Classifier, Plugin, UniversalAttack
from bench.core.checkpoints import Checkpoint
from bench.core.tensor_cache import cache_path, cached, checksum
from bench.engine.adaptive import BARE, in_turn, one_for_all
from bench.engine.audit import audit
from bench.engine.craft import Crafted, Progress, craft
from bench.engine.interference import unchanged
from bench.engine.judge import certified, judge, refute, spare_lost
from bench.engine.prepare import full_float32, only_calls
from bench.engine.protect import Protected, protect
from bench.engine.provenance import make_outcome, network_form
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


@full_float32()
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

    oblivious = attacked = _crafted(attack, BARE, testbed.crafting, testbed.rows, None, cell, testbed, progress)
    if cell.tier == "adaptive" and protected.model not in testbed.networks:
        attacked = _adaptive(attack, oblivious, protected, cell, testbed, progress)
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


def _adaptive(
    attack: Attack, bare: Crafted, protected: Protected, cell: Cell, testbed: Testbed, progress: Progress
) -> Crafted:
    """What one who knows the defense submits. Gradients come from its views, scores from the defended model.

    The bare model is a view too: who knows the defense knows the model behind it, and transfer is sometimes stronger.
    """
    own = {"defended": protected.model}
    if attack.access == "gradients":
        network = testbed.crafting if only_calls(protected.defense) else testbed.bare
        own = protected.defense.attacker_views(network, protected.learned)

    def through(name: str, rows: Tensor) -> Crafted:
        return _crafted(attack, name, own[name], rows, protected, cell, testbed, progress)

    def applied(given: Attack) -> Crafted:
        return craft(given, protected.model, testbed, testbed.rows, DRAWS[cell.effort], progress, Checkpoint(None))

    # No view of a defense may take the place of the bare model.
    views = {
        f"defense's {name}" if name == BARE else name: partial(through, name)
        for name, view in own.items()
        if view not in testbed.networks
    }
    if not views:
        if protected.model in testbed.networks or protected.defense.sees_originals:
            return bare
        own, views = {"defended": protected.model}, {"defended": partial(through, "defended")}
    if isinstance(attack, UniversalAttack):
        crafted = {BARE: bare} | {name: view(testbed.rows) for name, view in views.items()}
        return one_for_all(attack, crafted, applied, protected, testbed)
    return in_turn(attack, bare, views, protected, testbed)


def _crafted(
    attack: Attack,
    name: str,
    view: Classifier,
    rows: Tensor,
    protected: Protected | None,
    cell: Cell,
    testbed: Testbed,
    progress: Progress,
) -> Crafted:
    """Adversarial images of some rows through one view, from the cache if they were made before.

    After a kill it goes on after the last saved batch. The bare model has no `protected`: it is crafted once for all
    defenses.
    """
    draws = DRAWS[cell.effort]
    defended, learned = (protected.model, protected.learned) if protected else (None, None)
    plugins: list[Plugin] = [attack, protected.defense] if protected else [attack]
    inputs = testbed.fingerprints | {
        "model": testbed.setting.model,
        "attack": plugin_key(attack),
        "view": f"{name} of {plugin_key(protected.defense)}" if protected else BARE,
        "images": checksum({"rows": rows}),
        "goal": f"{cell.goal} seed {cell.seed}",
        "draws": str(draws if view.random else 1),
        "engine": f"torch {torch.__version__} {testbed.device.type} {network_form(testbed)}",
    }
    if not attack.per_image:
        inputs["batch size"] = str(testbed.batch_size)
    checkpoint = Checkpoint(cache_path("crafted", inputs).with_suffix(".pt"))

    def tell(share: float, doing: str) -> None:
        progress(share, f"{doing} through {name}" if protected else doing)

    def make() -> dict[str, Tensor]:
        with unchanged(testbed, plugins, defended, learned):  # else wrong images would reach the cache
            return craft(attack, view, testbed, rows, draws, tell, checkpoint).tensors()

    tensors = cached("crafted", inputs, make)
    checkpoint.drop()
    return Crafted.of_tensors(tensors, testbed.device)
