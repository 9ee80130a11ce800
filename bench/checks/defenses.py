"""The contract of a defense, as small named checks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.checks.case import CLASSES, Case, expect, smooth_images
from bench.contracts import CertifiedDefense, Classifier, Goal, Images, Linf, Patch, Transform, answers
from bench.core.goals import predicted
from bench.plugins.fresh_copy import fresh_copy


def gives_logits(case: Case) -> None:
    """The defended model gives finite logits, one for each class (and one for rejection)."""
    logits = answers(case.defended, case.images, case.streams)
    wanted = (6, CLASSES + case.defended.rejects)
    expect(logits.shape == wanted, f"expected logits of shape {wanted}, but got {tuple(logits.shape)}")
    expect(logits.isfinite().all(), "expected finite logits")


def leaves_the_images_alone(case: Case) -> None:
    """The images that the defended model is given stay as they are."""
    images = case.images
    answers(case.defended, images, case.streams)
    expect(torch.equal(images, case.images), "expected the images given to stay as they are")


def remembers_no_image(case: Case) -> None:
    """An answer does not depend on the images that were shown before."""
    others = case.images * 0.96 + 0.02
    used, unused = (fresh_copy(case.defense).protect(case.classifier, case.learned.artifact) for _ in range(2))
    answers(used, case.images, case.streams)
    gap = float((answers(used, others, case.streams) - answers(unused, others, case.streams)).abs().max())
    expect(gap < 1e-3, f"expected the same logits whatever was shown before, but they differ by {gap:.2g}")


def takes_any_batch(case: Case) -> None:
    """Batches of none and of one image work."""
    for count in (0, 1):
        logits = case.defended(case.images[:count], case.streams[:count])
        expect(len(logits) == count, f"expected {count} rows of logits, but got {len(logits)}")


def handles_extreme_images(case: Case) -> None:
    """Black, grey and white images, and images of only 0 and 1, have finite logits and gradients."""
    images = _extreme(case)
    logits = answers(case.defended, images, case.streams)
    expect(logits.isfinite().all(), "expected finite logits for images of one level, or of only 0 and 1")
    for name, view in case.views.items():
        gradient = _gradient(view, case, images)
        expect(gradient.isfinite().all(), f"expected a finite gradient through {name!r} for images of one level")


def refuses_nan_or_confines_it(case: Case) -> None:
    """NaN in an image raises an error that names it, or changes the answers for no other image."""
    broken, others = case.images, torch.arange(6) != 2
    broken[2, 1, 5, 5] = torch.nan
    try:
        logits = answers(case.defended, broken, case.streams)
    except ValueError as error:
        expect("NaN" in str(error), f"expected an error that names NaN, but it says: {error}")
        return
    gap = (logits - answers(case.defended, case.images, case.streams))[others].abs().max()
    expect(gap < 1e-3, f"expected NaN to change no other image's logits, but they differ by {float(gap):.2g}")


def answers_each_image_by_itself(case: Case) -> None:
    """An answer depends on its own image and stream, never on its neighbours."""
    together = answers(case.defended, case.images, case.streams)
    apart = torch.cat(
        [answers(case.defended, case.images[row : row + 1], case.streams[row : row + 1]) for row in range(6)]
    )
    gap = float((together - apart).abs().max())
    expect(gap < 1e-3, f"expected the same logits in any batch, but they differ by {gap:.2g}")


def says_whether_it_is_random(case: Case) -> None:
    """Equal streams give equal answers; other streams give other answers only if it is `random`."""
    first = answers(case.defended, case.images, case.streams)
    again = answers(case.defended, case.images, case.streams[:])
    expect(torch.equal(first, again), "expected the same logits for the same streams")
    if not case.defended.random:
        other = answers(case.defended, case.images, case.streams.derive("other"))
        expect(torch.equal(first, other), "expected random = True of a model whose logits depend on its streams")


def cleans_images_to_images(case: Case) -> None:
    """A transform returns images of the same shape and type in [0, 1] and leaves the given ones alone."""
    defense = case.defense
    if not isinstance(defense, Transform):
        return
    images = smooth_images(len(case.images), torch.float32)
    given = images.clone()
    cleaned = defense.clean(given, case.streams[:])
    expect(torch.equal(given, images), "expected the images given to stay as they are")
    expect(cleaned.shape == images.shape, f"expected shape {tuple(images.shape)}, but got {tuple(cleaned.shape)}")
    expect(cleaned.dtype == images.dtype, f"expected {images.dtype}, but got {cleaned.dtype}")
    expect(((cleaned >= 0) & (cleaned <= 1)).all(), "expected values in [0, 1]")
    if "exact" in defense.views:
        gap = float((defense.differentiable(images, case.streams[:]) - cleaned).abs().max())
        expect(
            gap < 2e-3, f"expected `differentiable` to be the same function as `clean`, but they differ by {gap:.2g}"
        )


def has_a_gradient(case: Case) -> None:
    """Through each attacker view there is a gradient that is finite and not zero."""
    for name, view in case.views.items():
        gradient = _gradient(view, case)
        expect(gradient.isfinite().all(), f"expected a finite gradient through the view {name!r}")
        share = float((gradient.flatten(1) != 0).any(1).double().mean())
        expect(share > 0.5, f"expected a gradient through the view {name!r}, but it is zero on most images")


def has_the_true_gradient(case: Case) -> None:
    """The view `exact` agrees with finite differences along random directions (for most: kinks are allowed)."""
    defense = case.defense
    if not isinstance(defense, Transform) or "exact" not in defense.views or defense.straight_through:
        return
    view = case.views["exact"]
    rng = torch.Generator().manual_seed(1)
    noise = torch.rand(case.images.shape, generator=rng, dtype=case.images.dtype)
    images = case.images * 0.8 + 0.1 + 1e-3 * noise  # off the 8-bit grid: equal values are kinks of many filters
    gradient = _gradient(view, case, images)
    agreed = []
    for _ in range(5):
        direction = torch.randn(images.shape, generator=rng, dtype=images.dtype)
        step = 1e-7
        ahead, behind = (_loss(view, case, images + sign * step * direction) for sign in (1, -1))
        slope = (ahead - behind) / (2 * step)
        claimed = (gradient * direction).flatten(1).sum(1)
        agreed.append((slope - claimed).abs() <= 0.02 * slope.abs() + 1e-3 * gradient.flatten(1).norm(dim=1) + 1e-6)
    share = float(torch.stack(agreed).double().mean())
    expect(share >= 0.6, f"expected the gradient of finite differences, but only {100 * share:.0f} % of slopes agree")


def survives_its_own_certificate(case: Case) -> None:
    """Certified images are classified correctly."""
    defense = case.defense
    if not isinstance(defense, CertifiedDefense):
        return
    correct = predicted(answers(case.defended, case.images, case.streams)[:, :CLASSES]) == case.labels
    for budget in (Patch(0.02), Linf(1 / 255)):
        sure = defense.certify(case.classifier, case.learned.artifact, case.images, case.labels, budget)
        expect(sure.shape == correct.shape, f"expected one verdict an image, but got shape {tuple(sure.shape)}")
        expect((~sure | correct).all(), f"expected certified images ({budget}) to be classified correctly")


def _extreme(case: Case) -> Images:
    """Black, grey and white images, and three of only 0 and 1."""
    images = case.images.round()
    images[:3] = torch.tensor([0, 0.5, 1], dtype=images.dtype)[:, None, None, None]
    return images


def _loss(view: Classifier, case: Case, images: Images) -> Tensor:
    goal = Goal(case.labels, None, view.rejects)
    return goal.margin(view(images, case.streams))


def _gradient(view: Classifier, case: Case, images: Images | None = None) -> Tensor:
    images = (case.images if images is None else images.clone()).requires_grad_()
    (gradient,) = torch.autograd.grad(_loss(view, case, images).sum(), images)
    return gradient


OF_DEFENSES: list[Callable[[Case], None]] = [
    gives_logits,
    leaves_the_images_alone,
    remembers_no_image,
    takes_any_batch,
    handles_extreme_images,
    refuses_nan_or_confines_it,
    answers_each_image_by_itself,
    says_whether_it_is_random,
    cleans_images_to_images,
    has_a_gradient,
    has_the_true_gradient,
    survives_its_own_certificate,
]
