"""Facts about attacked images: the attack's word is never taken, predictions and budgets are checked again."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from bench.contracts import Attack, CertifiedDefense, Classifier, Goal, Images, NotApplicableError
from bench.craft import Crafted
from bench.outcome import Facts
from bench.protect import Protected, fresh_answers
from bench.scene import Scene

GREY = 0.5


class AuditError(RuntimeError):
    """An attack broke its own agreement: wrong shape, NaN, outside [0, 1], or outside its budget."""


class CertificateError(RuntimeError):
    """A certified image was turned within the certified budget: the certificate, and so the benchmark, is wrong."""


def audit(attack: Attack, images: Images, adversarial: Images) -> None:
    """Raises AuditError unless every adversarial image is an image within the attack's budget."""
    if adversarial.shape != images.shape:
        raise AuditError(f"expected images of shape {tuple(images.shape)}, but {tuple(adversarial.shape)} came")
    if adversarial.dtype != images.dtype:
        raise AuditError(f"expected images of type {images.dtype}, but {adversarial.dtype} came")
    flat = adversarial.flatten(1)
    for broken, what in (
        (flat.isnan().any(1), "holds NaN"),
        ((flat < 0).any(1) | (flat > 1).any(1), "has values outside [0, 1]"),
        (~attack.allows(images, adversarial), f"is outside the budget ({attack.budget})"),
    ):
        if bool(broken.any()):
            count, first = int(broken.sum()), int(broken.nonzero()[0])
            raise AuditError(f"image {first} of the run {what}, and {count - 1} more of {len(images)}")


def strongest(crafted: dict[str, Crafted], defended: Classifier, scene: Scene) -> Crafted:
    """For each image the attacked image that comes nearest to the goal on the defended model itself.

    Args:
        crafted: view -> what was crafted through it; which view won is noted as `through VIEW`.
        defended: the model that counts.
        scene: images, goal and streams.
    """
    if len(crafted) == 1:
        return next(iter(crafted.values()))
    goal = Goal(scene.goal.labels, scene.goal.targets, defended.rejects)
    rng = scene.streams.derive("choosing a view")
    every = list(crafted.values())
    margins = torch.stack([goal.margin(fresh_answers(defended, one.adversarial, rng)) for one in every])
    best = margins.argmin(0)

    def pick(values: list[Tensor]) -> Tensor:
        stacked = torch.stack(values)
        return stacked[best, torch.arange(len(best), device=best.device)]

    def total(values: list[Tensor]) -> Tensor:
        return torch.stack(values).sum(0)

    shared = set.intersection(*(set(one.noted) for one in every))
    noted = {name: pick([one.noted[name] for one in every]) for name in sorted(shared)}
    if "zero_gradient" in shared:  # what counts is whether none of the defense's own views has a gradient
        own = [one.noted["zero_gradient"] for name, one in crafted.items() if name != "bare"]
        noted["zero_gradient"] = reduce(torch.fmin, own)
    attacked = torch.stack([one.eligible for one in every]).any(0)
    through = {
        f"through {name}": torch.where(attacked, (best == place).double(), torch.nan)
        for place, name in enumerate(crafted)
    }
    return Crafted(
        adversarial=pick([one.adversarial for one in every]),
        eligible=attacked,
        right=pick([one.right for one in every]),
        forwards=total([one.forwards for one in every]),
        backwards=total([one.backwards for one in every]),
        noted=noted | through,
        artifact=every[int(best.bincount().argmax())].artifact,
        seconds={name: sum(one.seconds[name] for one in every) for name in every[0].seconds},
    )


def spare_lost(crafted: Crafted, protected: Protected, scene: Scene) -> Crafted:
    """What an informed attacker shows: images that the defended model gets wrong on its own stay as they are.

    A clean image that a detector rejects is an error already. Changed, it would count as an attack that was caught.
    """
    if scene.goal.targets is not None:
        return crafted
    lost = (protected.clean.argmax(-1) != scene.labels).all(0)
    return replace(crafted, adversarial=torch.where(lost[:, None, None, None], scene.images, crafted.adversarial))


def judge(attack: Attack, protected: Protected, oblivious: Crafted, attacked: Crafted, scene: Scene) -> Facts:
    """Asks the defended model about every attacked image, and puts the facts of all images together."""
    model, clean = protected.model, protected.clean
    if protected.defense.sees_originals and attack.budget.threat_model in ("linf", "l2"):
        raise NotApplicableError("an oracle that is told which pixels changed says nothing where all of them do")
    goal = Goal(scene.goal.labels, scene.goal.targets, model.rejects)
    rng = scene.streams.derive("judging")

    def asked(images: Images) -> Tensor:
        shown = torch.cat([images, scene.images], dim=1) if protected.defense.sees_originals else images
        return fresh_answers(model, shown, rng)

    final, rounded = asked(attacked.adversarial), asked((attacked.adversarial * 255).round() / 255)
    eligible = goal.eligible(clean[0])
    reached = torch.stack([goal.reached(one) for one in final]).double().mean(0) * eligible
    changed = attacked.adversarial != scene.images
    caught = changed.flatten(1).any(1) if model.rejects else None
    facts = Facts(
        index=scene.indices.tolist(),
        label=scene.labels.tolist(),
        eligible=eligible.int().tolist(),
        bare_clean=_right(scene.bare_clean[None], goal),
        bare_attacked=oblivious.right.double().tolist(),
        defended_clean=_right(clean, goal),
        defended_attacked=_right(final, goal, caught),
        defended_attacked_8bit=_right(rounded, goal, caught),
        reached=_plain(reached),
        noted={name: _plain(values) for name, values in attacked.noted.items()},
    )
    if attack.budget.threat_model == "patch":
        occluded = torch.where(changed.any(1, keepdim=True), GREY, scene.images)
        facts.defended_occluded = _right(asked(occluded), goal, caught)
    if model.rejects:
        facts.rejected_clean = _share(clean.argmax(-1) == clean.shape[-1] - 1)
        facts.rejected_attacked = _share(final.argmax(-1) == final.shape[-1] - 1)
    return facts


def certified(attack: Attack, protected: Protected, scene: Scene) -> list[int] | None:
    """For a certified defense: whether it proves its answer on each image within the attack's budget."""
    defense = protected.defense
    if not isinstance(defense, CertifiedDefense):
        return None
    proved = defense.certify(scene.bare, protected.learned, scene.images, scene.labels, attack.budget)
    numbers: list[int] = proved.int().tolist()
    return numbers


def refute(facts: Facts, attack: Attack, protected: Protected) -> None:
    """Raises CertificateError where an attack turned an image that was certified within its budget.

    The certificate of a random defense holds with a stated confidence only: nothing refutes it.
    """
    if facts.certified is None or protected.model.random:
        return
    pairs = zip(facts.certified, facts.defended_attacked, strict=True)
    broken = [place for place, (sure, right) in enumerate(pairs) if sure and right < 1]
    if broken:
        raise CertificateError(
            f"{len(broken)} certified images were turned within {attack.budget}, the first at place {broken[0]}"
        )


def warnings_of(facts: Facts) -> list[str]:
    """What makes the numbers of this cell doubtful, with figures."""
    told = []
    zero = [value for value in facts.noted.get("zero_gradient", []) if value is not None]
    if zero and sum(zero) > 0.05 * len(zero):
        told.append(f"{_percent(sum(zero), len(zero))} of the input gradients were exactly zero")
    unconverged = [value for value in facts.noted.get("unconverged", []) if value is not None]
    if any(unconverged):
        told.append(f"the attack ended without convergence on {sum(unconverged):.0f} of {len(unconverged)} images")
    bare = [value for value in facts.noted.get("through bare", []) if value is not None]
    if sum(bare) > 0.5 * len(bare):
        told.append(
            f"on {sum(bare):.0f} of {len(bare)} images the strongest attack was the one crafted on the bare model: the "
            f"attack through the defense is weak"
        )
    died = sum(
        on_grid > off_grid
        for on_grid, off_grid in zip(facts.defended_attacked_8bit, facts.defended_attacked, strict=True)
    )
    if died > 0.01 * len(facts.index):
        told.append(f"success on {died} of {len(facts.index)} images dies on the 8-bit grid")
    return told


def _right(logits: Tensor, goal: Goal, caught: Tensor | None = None) -> list[float]:
    """Share of the draws in which each image is classified rightly, or rejected where that catches an attack."""
    predicted = logits.argmax(-1)
    right = predicted == goal.labels
    if caught is not None:
        right |= caught & (predicted == logits.shape[-1] - 1)
    return _share(right)


def _share(hits: Tensor) -> list[float]:
    return [round(value, 6) for value in hits.double().mean(0).tolist()]


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %"


def _plain(values: Tensor) -> list[Any]:
    return [None if math.isnan(value) else round(value, 6) for value in values.double().tolist()]
