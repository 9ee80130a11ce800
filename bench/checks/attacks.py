"""The contract of an attack, as small named checks."""

from __future__ import annotations

from collections.abc import Callable

import torch

from bench.checks.case import CLASSES, Case, expect
from bench.contracts import Attack, Goal, Model, NotApplicableError, UniversalAttack


def gives_images(case: Case) -> None:
    """Adversarial images have the shape and type of the images, and values in [0, 1]."""
    adversarial, _ = case.attacked()
    expect(adversarial.shape == case.images.shape, f"expected {case.images.shape}, but got {adversarial.shape}")
    expect(adversarial.dtype == case.images.dtype, f"expected {case.images.dtype}, but got {adversarial.dtype}")
    inside = (adversarial >= 0).all() & (adversarial <= 1).all()
    expect(inside, "expected values in [0, 1]")


def keeps_its_budget(case: Case) -> None:
    """Every adversarial image passes the attack's own audit."""
    adversarial, _ = case.attacked()
    kept = case.attack.allows(case.images, adversarial)
    expect(kept.all(), f"expected {case.attack.budget}, but image {kept.int().argmin().item()} leaves it")


def leaves_its_inputs_alone(case: Case) -> None:
    """The images given are not changed, nor does the model keep gradients."""
    images = case.images.clone()
    case.attack(Model(case.classifier, case.streams), images, case.goal, case.streams)
    expect(torch.equal(images, case.images), "expected the images given to stay as they are")
    grads = [one for one in case.classifier.parameters() if one.grad is not None]
    expect(not grads, "expected no gradient left in the model's parameters")


def leaves_ineligible_images_alone(case: Case) -> None:
    """An image that is misclassified already is given back bit for bit, without a query."""
    adversarial, model = case.attacked()
    expect(torch.equal(adversarial[-1], case.images[-1]), "expected the misclassified image to come back as it was")
    expect(model.forwards[-1] == 0, f"expected no query for it, but {int(model.forwards[-1])} were made")


def repeats_itself(case: Case) -> None:
    """The same seed gives the same images."""
    expect(torch.equal(case.attacked()[0], case.attacked()[0]), "expected the same images for the same seed")


def does_not_depend_on_the_batch(case: Case) -> None:
    """An image is attacked in the same way alone and among others (float64), unless the attack says otherwise."""
    if isinstance(case.plugin, Attack) and not case.plugin.per_image:
        return
    together = case.attacked()[0]
    apart = torch.cat([case.attacked(slice(0, 2))[0], case.attacked(slice(2, 6))[0]])
    different = (together != apart).flatten(1).any(1)
    expect(not different.any(), f"expected the same images whatever the batch; {int(different.sum())} of 6 differ")


def asks_no_more_than_it_says(case: Case) -> None:
    """`access` is the most it uses."""
    _, model = case.attacked()
    access = case.attack.access
    if access != "gradients":
        expect(model.backwards.sum() == 0, f"expected no gradients from an attack with access={access!r}")
    if access == "none":
        expect(model.forwards.sum() == 0, "expected no queries from an attack with access='none'")


def wants_a_target(case: Case) -> None:
    """A targeted goal is attacked within the budget, too, or refused with NotApplicableError."""
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
    expect(attack.allows(case.images, adversarial).all(), f"expected {attack.budget} for targets, too")


OF_ATTACKS: list[Callable[[Case], None]] = [
    gives_images,
    keeps_its_budget,
    leaves_its_inputs_alone,
    leaves_ineligible_images_alone,
    repeats_itself,
    does_not_depend_on_the_batch,
    asks_no_more_than_it_says,
    wants_a_target,
]
