"""Facts about attacked images. An attack's claims are never trusted: predictions and budgets are checked again."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bench.contracts import Attack, CertifiedDefense, Goal, Images, NotApplicableError
from bench.core.goals import predicted
from bench.engine.craft import Crafted
from bench.engine.independence import FEW, hidden_input
from bench.engine.protect import Protected, fresh_answers
from bench.engine.testbed import Testbed
from bench.memory import in_pieces, piece_of
from bench.records.schema import COVERED, COVERED_WRONGLY, Facts
from bench.records.warnings import NON_FINITE_ATTACKED, NON_FINITE_CLEAN

GREY = 0.5


class CertificateError(RuntimeError):
    """An attack turned an image within its certified budget: the certificate, and so the benchmark, is wrong."""


def lost(protected: Protected, testbed: Testbed) -> Tensor:
    """Which clean images the defended model gets wrong in every draw; none if a certain class is wanted."""
    wrong = (predicted(protected.clean) != testbed.labels).all(0)
    return wrong if testbed.goal.targets is None else torch.zeros_like(wrong)


def spare_lost(crafted: Crafted, protected: Protected, testbed: Testbed) -> Crafted:
    """What an adaptive attacker submits: images that the defended model gets wrong by itself stay as they are.

    A clean image that a detector rejects is an error already. Changed, it would count as an attack that was caught.
    """
    spared = lost(protected, testbed)[:, None, None, None]
    return replace(crafted, adversarial=torch.where(spared, testbed.images, crafted.adversarial))


def judge(attack: Attack, protected: Protected, oblivious: Crafted, attacked: Crafted, testbed: Testbed) -> Facts:
    """Asks the defended model about every attacked image, and collects the facts of all images.

    The answers come from a copy of the defended model that nobody has used, so that a defense gains nothing from
    remembering what attackers asked, or the clean images.
    """
    model, clean = protected.unused(), protected.clean
    if protected.defense.sees_originals and attack.budget.threat_model in ("linf", "l2"):
        raise NotApplicableError("an oracle that knows which pixels changed says nothing where all of them do")
    goal = Goal(testbed.goal.labels, testbed.goal.targets, model.rejects)
    rng = testbed.streams.derive("judging")

    def seen(images: Images) -> Tensor:
        """What the defended model is given: a copy, which it may not change in any case."""
        return torch.cat([images, testbed.images], dim=1) if protected.defense.sees_originals else images.clone()

    def asked(images: Images) -> Tensor:
        return fresh_answers(model, seen(images), rng)

    final, rounded = asked(attacked.adversarial), asked((attacked.adversarial * 255).round() / 255)
    eligible = goal.eligible(clean[0])
    reached = torch.stack([goal.reached(logits) for logits in final]).double().mean(0) * eligible
    changed = attacked.adversarial != testbed.images
    caught = changed.flatten(1).any(1) if model.rejects else None
    facts = Facts(
        index=testbed.indices.tolist(),
        label=testbed.labels.tolist(),
        eligible=eligible.int().tolist(),
        bare_clean=_correct(testbed.bare_clean[None], goal),
        bare_attacked=oblivious.right.double().tolist(),
        defended_clean=_correct(clean, goal),
        defended_attacked=_correct(final, goal, caught),
        defended_attacked_8bit=_correct(rounded, goal, caught),
        reached=_rounded(reached),
        noted={name: _rounded(values) for name, values in attacked.noted.items()},
    )
    if attack.budget.threat_model == "patch":
        occluded = torch.where(changed.any(1, keepdim=True), GREY, testbed.images)
        facts.defended_occluded = _correct(asked(occluded), goal, caught)
    if model.rejects:
        facts.rejected_clean = _share(predicted(clean) == clean.shape[-1] - 1)
        facts.rejected_attacked = _share(predicted(final) == final.shape[-1] - 1)
    facts.noted |= {name: _rounded(values) for name, values in _located(attack, protected, attacked, testbed).items()}
    for name, logits in ((NON_FINITE_CLEAN, clean), (NON_FINITE_ATTACKED, final)):
        if not logits.isfinite().all():
            facts.noted[name] = [*_share(~logits.isfinite().all(-1))]
    rows = _few(changed)
    draw = rng[rows].derive("draw 0")  # the first of `fresh_answers`
    hidden = hidden_input(protected.model, model, seen(attacked.adversarial)[rows], draw, final[0, rows])
    if hidden:
        asked_again = torch.full((len(testbed),), torch.nan).index_fill(0, rows.cpu(), 1.0)
        facts.noted[hidden] = _rounded(asked_again)
    return facts


def _located(attack: Attack, protected: Protected, attacked: Crafted, testbed: Testbed) -> dict[str, Tensor]:
    """For a defense that finds attacked pixels: the share of them that it covers, and of the image, wrongly."""
    if attack.budget.threat_model not in ("patch", "pixels"):
        return {}
    images, rng = attacked.adversarial, testbed.streams.derive("judging").derive("draw 0")

    def masked(part: slice) -> Tensor:
        mask = protected.defense.mask(testbed.bare, protected.learned, images[part].clone(), rng[part])
        return images.new_zeros(0, dtype=torch.bool) if mask is None else mask

    masks = in_pieces(masked, len(images), piece_of(images.shape))
    if not len(masks):
        return {}
    changed = (images != testbed.images).any(1)
    count = changed.sum((1, 2))
    wrong = (masks & ~changed).double().mean((1, 2))
    return {
        COVERED: (masks & changed).sum((1, 2)) / count,  # NaN where nothing changed
        COVERED_WRONGLY: wrong.where(count > 0, torch.nan),
    }


def _few(changed: Tensor) -> Tensor:
    """The rows of a few images, attacked ones first."""
    return changed.flatten(1).any(1).int().argsort(descending=True, stable=True)[:FEW]


def certified(attack: Attack, protected: Protected, testbed: Testbed) -> list[int] | None:
    """For a certified defense: whether it proves its answer on each image within the attack's budget."""
    defense = protected.defense
    if not isinstance(defense, CertifiedDefense):
        return None
    proved = defense.certify(testbed.bare, protected.learned, testbed.images, testbed.labels, attack.budget)
    if proved.dtype != torch.bool or proved.shape != testbed.labels.shape:
        shape = tuple(proved.shape)
        raise TypeError(f"expected `certify` to return {len(testbed)} bools, but got {proved.dtype} of shape {shape}")
    numbers: list[int] = proved.int().tolist()
    return numbers


def refute(facts: Facts, attack: Attack, protected: Protected) -> None:
    """Raises CertificateError where an attack turned an image that was certified within its budget.

    The certificate of a random defense holds with a stated confidence only: nothing refutes it.
    """
    if facts.certified is None or protected.model.random:
        return
    pairs = zip(facts.certified, facts.defended_attacked, strict=True)
    broken = [place for place, (sure, correct) in enumerate(pairs) if sure and correct < 1]
    if broken:
        raise CertificateError(
            f"{len(broken)} certified images were turned within {attack.budget}, the first at place {broken[0]}"
        )


def _correct(logits: Tensor, goal: Goal, caught: Tensor | None = None) -> list[float]:
    """Share of the draws in which each image is classified correctly, or rejected where that catches an attack."""
    classes = predicted(logits)
    correct = classes == goal.labels
    if caught is not None:
        correct |= caught & (classes == logits.shape[-1] - 1)
    return _share(correct)


def _share(hits: Tensor) -> list[float]:
    return [round(value, 6) for value in hits.double().mean(0).tolist()]


def _rounded(values: Tensor) -> list[Any]:
    """As numbers of a record; NaN becomes None."""
    return [None if math.isnan(value) else round(value, 6) for value in values.double().tolist()]
