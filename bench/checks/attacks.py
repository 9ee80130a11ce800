"""The contract of an attack, as small named checks."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.checks.case import CLASSES, Case, expect
from bench.contracts import Attack, Goal, Model, NotApplicableError, UniversalAttack
from bench.engine.audit import audit, audit_artifact


def gives_images_within_its_budget(case: Case) -> None:
    """Adversarial images have the shape and type of the images, and pass the audit of `bench run`."""
    adversarial, _ = case.first_attack
    audit(case.attack, case.images, adversarial, range(len(case.images)))


def learns_names_and_tensors(case: Case) -> None:
    """The artifact of a universal attack is a dict of names and tensors."""
    audit_artifact(case.artifact)


def leaves_its_inputs_alone(case: Case) -> None:
    """The attack changes neither the images that it is given nor the gradients of the model."""
    images = case.images
    case.attack(Model(case.classifier, case.streams), images, case.goal, case.streams)
    expect(torch.equal(images, case.images), "expected the images given to stay as they are")
    with_gradient = [weight for weight in case.classifier.parameters() if weight.grad is not None]
    expect(not with_gradient, "expected no gradient left in the model's parameters")


def leaves_ineligible_images_alone(case: Case) -> None:
    """A misclassified image comes back bit for bit, without a query."""
    adversarial, model = case.first_attack
    expect(torch.equal(adversarial[-1], case.images[-1]), "expected the misclassified image to come back as it was")
    expect(model.forwards[-1] == 0, f"expected no query for it, but {int(model.forwards[-1])} were made")


def repeats_itself(case: Case) -> None:
    """The same seed gives the same images."""
    expect(torch.equal(case.first_attack[0], case.attack_again()[0]), "expected the same images for the same seed")


def does_not_depend_on_the_batch(case: Case) -> None:
    """An image is attacked in the same way alone and among others (float64), unless the attack says otherwise."""
    if isinstance(case.plugin, Attack) and not case.plugin.per_image:
        return
    together = case.first_attack[0]
    apart = torch.cat([case.attack_again(slice(0, 2))[0], case.attack_again(slice(2, 6))[0]])
    different = (together != apart).flatten(1).any(1)
    expect(not different.any(), f"expected the same images whatever the batch; {int(different.sum())} of 6 differ")


def asks_no_more_than_it_says(case: Case) -> None:
    """`access` is the most that it uses."""
    _, model = case.first_attack
    access = case.attack.access
    if access != "gradients":
        expect(model.backwards.sum() == 0, f"expected no gradients from an attack with access={access!r}")
    if access == "none":
        expect(model.forwards.sum() == 0, "expected no queries from an attack with access='none'")


def accepts_or_refuses_a_target(case: Case) -> None:
    """With a targeted goal, too, it stays within its budget, or else raises NotApplicableError."""
    targets = (case.labels + 1) % CLASSES
    goal = Goal(case.labels, torch.full_like(targets, 1) if isinstance(case.plugin, UniversalAttack) else targets)
    attack = case.attack
    try:
        if isinstance(case.plugin, UniversalAttack):
            rng = case.streams[:5].derive("learning")
            artifact = case.plugin.learn(Model(case.classifier, rng), case.images[:5], goal[:5], rng)
            attack = case.plugin.given(artifact)
        adversarial = attack(Model(case.classifier, case.streams), case.images, goal, case.streams)
    except NotApplicableError:
        return
    audit(attack, case.images, adversarial, range(len(case.images)))


OF_ATTACKS: list[Callable[[Case], None]] = [
    gives_images_within_its_budget,
    learns_names_and_tensors,
    leaves_its_inputs_alone,
    leaves_ineligible_images_alone,
    repeats_itself,
    does_not_depend_on_the_batch,
    asks_no_more_than_it_says,
    accepts_or_refuses_a_target,
]
