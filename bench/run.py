"""THE MAIN PATH: one cell, from images to an outcome."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import torch

from bench import records
from bench.cache import cached, path_of
from bench.checkpoints import Checkpoint
from bench.contracts import Attack, Classifier
from bench.craft import Crafted, Progress, craft
from bench.judge import audit, certified, judge, refute, spare_lost, strongest
from bench.outcome import Cell, Effort, Outcome
from bench.protect import Protected, key_of, protect
from bench.registry import make_attack
from bench.scene import Scene, Setting, scene_of

DRAWS: dict[Effort, int] = {"quick": 5, "standard": 20, "paper": 30}
"""Answers of a random defense that an adaptive attacker averages for each gradient or score (EOT)."""


@dataclass(frozen=True)
class Computed:
    """A cell's outcome, with the images behind it."""

    outcome: Outcome
    scene: Scene
    protected: Protected
    attacked: Crafted


def run_cell(cell: Cell, setting: Setting, progress: Progress) -> Computed:
    """Computes one cell: the experiment of this benchmark. Whatever goes wrong is raised.

    Args:
        cell: what is to be known.
        setting: the cell's inputs as they lie on this machine.
        progress: told the share done (0 … 1) and what is being done.
    """
    started = perf_counter()
    scene = scene_of(setting)
    attack = make_attack(cell.attack, cell.effort)
    attack.check(scene.image_shape, scene.classes)
    protected = protect(scene, cell.defense, progress)

    bare = {"bare": scene.bare}
    oblivious = attacked = _crafted(attack, bare, None, cell, scene, progress)
    if cell.tier == "adaptive":
        attacked = _crafted(attack, _views(attack, protected, scene), protected, cell, scene, progress)
        attacked = spare_lost(attacked, protected, scene)

    progress(1, "judging")
    audit(attack, scene.images, oblivious.adversarial)
    audit(attack, scene.images, attacked.adversarial)
    facts = judge(attack, protected, oblivious, attacked, scene)
    facts.certified = certified(attack, protected, scene)
    refute(facts, attack, protected)

    seconds = attacked.seconds | {"train": protected.cost.get("seconds", 0)}
    seconds["total"] = perf_counter() - started
    outcome = records.outcome(cell, scene, attack, protected, attacked, facts, DRAWS[cell.effort], seconds)
    return Computed(outcome, scene, protected, attacked)


def _views(attack: Attack, protected: Protected, scene: Scene) -> dict[str, Classifier]:
    """What an informed attacker works through.

    Gradients come from the defense's views, scores from the defended model. The bare model is there, too: who knows the
    defense knows what stands behind it, and transfer is at times the stronger attack.
    """
    if protected.model is scene.bare:
        return {"bare": scene.bare}
    own = {"defended": protected.model}
    if attack.access == "gradients":
        own = protected.defense.attacker_views(scene.bare, protected.learned)
    return own | {"bare": scene.bare}


def _crafted(
    attack: Attack,
    views: dict[str, Classifier],
    protected: Protected | None,
    cell: Cell,
    scene: Scene,
    progress: Progress,
) -> Crafted:
    """Adversarial images through each view (the strongest for each image), from the cache if they were made before.

    What was killed goes on where it was. A view that is the bare model is shared by all defenses: it is made once.
    """
    draws = DRAWS[cell.effort]

    def made(name: str, view: Classifier) -> Crafted:
        through = "" if view is scene.bare or protected is None else f" through {name}"
        inputs = scene.fingerprints | {
            "attack": key_of(attack),
            "view": f"{name} of {key_of(protected.defense)}" if through and protected else "bare",
            "goal": f"{cell.goal} seed {cell.seed}",
            "draws": str(draws if view.random else 1),
            "engine": f"{records.PROTOCOL} torch {torch.__version__} {scene.device.type}",
        }

        checkpoint = Checkpoint(path_of("crafted", inputs).with_suffix(".pt"))

        def tell(share: float, doing: str) -> None:
            progress(share, doing + through)

        def make() -> dict[str, torch.Tensor]:
            return craft(attack, view, scene, draws, tell, checkpoint).tensors()

        tensors = cached("crafted", inputs, make)
        checkpoint.drop()
        return Crafted.of_tensors(tensors, scene.device)

    crafted = {name: made(name, view) for name, view in views.items()}
    return strongest(crafted, protected.model if protected else scene.bare, scene)
