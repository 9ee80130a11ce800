"""Facts about attacked images: the attack's word is never taken, predictions and budgets are checked again."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from bench.contracts import Attack, CertifiedDefense, Classifier, Goal, Images, NotApplicableError
from bench.engine.craft import Crafted
from bench.engine.protect import Protected, fresh_answers
from bench.engine.testbed import Testbed
from bench.records.schema import Facts

GREY = 0.5


class CertificateError(RuntimeError):
    """A certified image was turned within the certified budget: the certificate, and so the benchmark, is wrong."""


def strongest(crafted: dict[str, Crafted], defended: Classifier, testbed: Testbed) -> Crafted:
    """For each image the attacked image that comes nearest to the goal on the defended model itself.

    Args:
        crafted: view -> what was crafted through it; which view won is noted as `through VIEW`.
        defended: the model that counts.
        testbed: images, goal and streams.
    """
    if len(crafted) == 1:
        return next(iter(crafted.values()))
    goal = Goal(testbed.goal.labels, testbed.goal.targets, defended.rejects)
    rng = testbed.streams.derive("choosing a view")
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


def spare_lost(crafted: Crafted, protected: Protected, testbed: Testbed) -> Crafted:
    """What an informed attacker shows: images that the defended model gets wrong on its own stay as they are.

    A clean image that a detector rejects is an error already. Changed, it would count as an attack that was caught.
    """
    if testbed.goal.targets is not None:
        return crafted
    lost = (protected.clean.argmax(-1) != testbed.labels).all(0)
    return replace(crafted, adversarial=torch.where(lost[:, None, None, None], testbed.images, crafted.adversarial))


def judge(attack: Attack, protected: Protected, oblivious: Crafted, attacked: Crafted, testbed: Testbed) -> Facts:
    """Asks the defended model about every attacked image, and puts the facts of all images together."""
    model, clean = protected.model, protected.clean
    if protected.defense.sees_originals and attack.budget.threat_model in ("linf", "l2"):
        raise NotApplicableError("an oracle that is told which pixels changed says nothing where all of them do")
    goal = Goal(testbed.goal.labels, testbed.goal.targets, model.rejects)
    rng = testbed.streams.derive("judging")

    def asked(images: Images) -> Tensor:
        shown = torch.cat([images, testbed.images], dim=1) if protected.defense.sees_originals else images
        return fresh_answers(model, shown, rng)

    final, rounded = asked(attacked.adversarial), asked((attacked.adversarial * 255).round() / 255)
    eligible = goal.eligible(clean[0])
    reached = torch.stack([goal.reached(one) for one in final]).double().mean(0) * eligible
    changed = attacked.adversarial != testbed.images
    caught = changed.flatten(1).any(1) if model.rejects else None
    facts = Facts(
        index=testbed.indices.tolist(),
        label=testbed.labels.tolist(),
        eligible=eligible.int().tolist(),
        bare_clean=_right(testbed.bare_clean[None], goal),
        bare_attacked=oblivious.right.double().tolist(),
        defended_clean=_right(clean, goal),
        defended_attacked=_right(final, goal, caught),
        defended_attacked_8bit=_right(rounded, goal, caught),
        reached=_plain(reached),
        noted={name: _plain(values) for name, values in attacked.noted.items()},
    )
    if attack.budget.threat_model == "patch":
        occluded = torch.where(changed.any(1, keepdim=True), GREY, testbed.images)
        facts.defended_occluded = _right(asked(occluded), goal, caught)
    if model.rejects:
        facts.rejected_clean = _share(clean.argmax(-1) == clean.shape[-1] - 1)
        facts.rejected_attacked = _share(final.argmax(-1) == final.shape[-1] - 1)
    return facts


def certified(attack: Attack, protected: Protected, testbed: Testbed) -> list[int] | None:
    """For a certified defense: whether it proves its answer on each image within the attack's budget."""
    defense = protected.defense
    if not isinstance(defense, CertifiedDefense):
        return None
    proved = defense.certify(testbed.bare, protected.learned, testbed.images, testbed.labels, attack.budget)
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


def _right(logits: Tensor, goal: Goal, caught: Tensor | None = None) -> list[float]:
    """Share of the draws in which each image is classified rightly, or rejected where that catches an attack."""
    predicted = logits.argmax(-1)
    right = predicted == goal.labels
    if caught is not None:
        right |= caught & (predicted == logits.shape[-1] - 1)
    return _share(right)


def _share(hits: Tensor) -> list[float]:
    return [round(value, 6) for value in hits.double().mean(0).tolist()]


def _plain(values: Tensor) -> list[Any]:
    return [None if math.isnan(value) else round(value, 6) for value in values.double().tolist()]
