"""The adaptive attacker, who knows the defense.

The first view is the bare model, whose images all defenses share. An attack on each image then goes through the
defense's own views in turn, each for those images that still withstand: an image that is broken costs nothing more. A
universal attack learns through every view, and one artifact is for all images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce

import torch
from torch import Tensor

from bench.contracts import Attack, Goal, Images, UniversalAttack
from bench.engine.craft import Crafted, training_goal, training_images
from bench.engine.judge import lost
from bench.engine.protect import Protected, fresh_answers
from bench.engine.testbed import Testbed

BARE = "bare"
"""The view that is the model without its defense."""

Through = Callable[[Tensor], Crafted]
"""Crafts through one view: the images at these places of the testbed, and no others."""


def in_turn(
    attack: Attack, bare: Crafted, views: Mapping[str, Through], protected: Protected, testbed: Testbed
) -> Crafted:
    """For each image its first success on the defended model, or else what comes nearest to one.

    A random defense counts as broken on an image if all its fresh draws are: one lucky draw is not enough, since the
    judge draws again.

    Args:
        attack: if its results depend on the batch (`per_image`), all views get all images.
        bare: crafted on the bare model.
        views: the defense's own, by name.
        protected: the defense, whose model decides.
        testbed: images, goal and streams.
    """
    goal = Goal(testbed.goal.labels, testbed.goal.targets, protected.model.rejects)
    rng = testbed.streams.derive("choosing a view")
    margins, crafted = dict[str, Tensor](), dict[str, Crafted]()
    spared = lost(protected, testbed)
    left = ~spared
    for name, through in {BARE: lambda rows: bare, **views}.items():
        rows = testbed.rows if name == BARE or not attack.per_image else left.nonzero()[:, 0]
        if name != BARE and not left.any():
            break
        part = through(rows)
        logits = fresh_answers(protected.model, part.adversarial, rng[rows])
        reached, margin = goal[rows].reached(logits), goal[rows].margin(logits)
        # NaN comes of logits that are not finite: a success, which may be that of some draws only.
        margin = margin.nan_to_num(torch.finfo(margin.dtype).min).masked_fill(reached, -torch.inf)
        margins[name] = margin.new_full((len(testbed),), torch.inf).index_copy(0, rows, margin)
        crafted[name] = part.spread(rows, testbed)
        left[rows] &= ~reached
    return strongest(crafted, margins, spared)


def strongest(crafted: Mapping[str, Crafted], margins: Mapping[str, Tensor], spared: Tensor) -> Crafted:
    """For each image the attempt with the smallest margin, the first of equals; `through VIEW` notes where it won.

    Args:
        crafted: view -> what was crafted through it.
        margins: view -> the margin of each image on the defended model, infinite where this view was not tried.
        spared: images that are left as they are; nothing is noted about their views.
    """
    views = list(crafted.values())
    best = torch.stack(list(margins.values())).argmin(0)
    attacked = torch.stack([view.eligible for view in views]).any(0)

    def pick(values: list[Tensor]) -> Tensor:
        return torch.stack(values)[best, torch.arange(len(best), device=best.device)]

    def total(values: list[Tensor]) -> Tensor:
        return torch.stack(values).sum(0)

    unknown = torch.full(best.shape, torch.nan, device=best.device)
    names = sorted({name for view in views for name in view.noted})
    noted = {name: pick([view.noted.get(name, unknown) for view in views]) for name in names}
    # What counts is whether none of the defense's own views has a gradient.
    own = [view.noted.get("zero_gradient", unknown) for name, view in crafted.items() if name != BARE]
    if "zero_gradient" in noted:
        noted["zero_gradient"] = reduce(torch.fmin, own, unknown)
    for place, (name, margin) in enumerate(margins.items()):
        tried = attacked & ~spared & (margin < torch.inf)
        noted[f"through {name}"] = torch.where(tried, (best == place).double(), torch.nan)
    return Crafted(
        adversarial=pick([view.adversarial for view in views]),
        eligible=attacked,
        right=pick([view.right for view in views]),
        forwards=total([view.forwards for view in views]),
        backwards=total([view.backwards for view in views]),
        noted=noted,
        seconds=_total_seconds(views),
    )


def one_for_all(
    attack: UniversalAttack,
    crafted: Mapping[str, Crafted],
    applied: Callable[[Attack], Crafted],
    protected: Protected,
    testbed: Testbed,
) -> Crafted:
    """The images with the one artifact that hurts the defended model most, on the training images.

    `through VIEW` notes the view that it was learned through.

    Args:
        attack: what learned.
        crafted: view -> what was learned and crafted through it.
        applied: attacks all images with an artifact.
        protected: the defense, whose model decides.
        testbed: training images and goal.
    """
    training = training_images(attack, testbed)
    goal = training_goal(training, protected.model, testbed)
    rng = training.streams.derive("choosing an artifact")

    def success(view: Crafted) -> tuple[float, float]:
        """Share of the draws of all training images, and the mean margin, with its sign changed, among equals."""
        attacked: Images = attack.apply(view.artifact, training.images, goal, rng.derive("apply"))
        logits = fresh_answers(protected.model, attacked, rng)
        reached = torch.stack([goal.reached(draw) for draw in logits]).double().mean()
        return float(reached), -float(goal.margin(logits).nan_to_num(-torch.inf).mean())

    # Without training images nothing was learned either, and every view has the same artifact.
    best = max(crafted, key=lambda name: success(crafted[name])) if len(training.images) else next(iter(crafted))
    chosen = applied(attack.given(crafted[best].artifact))
    through = {f"through {best}": torch.where(chosen.eligible, 1.0, torch.nan).double()}
    learned = _total_seconds([*crafted.values(), chosen])
    return Crafted(
        adversarial=chosen.adversarial,
        eligible=chosen.eligible,
        right=chosen.right,
        forwards=sum((view.forwards for view in crafted.values()), chosen.forwards),
        backwards=sum((view.backwards for view in crafted.values()), chosen.backwards),
        noted=chosen.noted | through,
        artifact=crafted[best].artifact,
        seconds=learned,
    )


def _total_seconds(views: list[Crafted]) -> dict[str, float]:
    return {name: sum(view.seconds[name] for view in views) for name in views[0].seconds}
