"""A fixed number of pixels at the ends of their range, improved by exchanging them one for one, guided by gradients.

With g the gradient of the margin, a pixel at original value x is worth Σ_c |g_c| · (room of x_c towards −g_c) where it
goes to that end, and Σ_c −g_c · (its change so far) where it has gone already. The search starts from the pixels that
are worth most. Each step asks about all chosen pixels sent to their ends anew, and about the least worthy chosen ones
exchanged for the most worthy others; the best of these answers is kept if it is better than before, else the next
step asks about the next others.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.contracts import Goal, Images, Model

from ._coding import colours_at
from ._steps import input_gradient
from ._variants import ask, best_of, paint

OUT, INTO = 2, 4
"""How many pixels are tried for leaving, and for coming, in one step: their product is the number of pairs."""


def exchanged(
    model: Model,
    images: Images,
    goal: Goal,
    pixels: int,
    eps: float,
    confidence: float,
    steps: int,
    start: Images | None = None,
) -> tuple[Images, Bool[Tensor, "n"]]:
    """Adversarial images with at most `pixels` changed pixels, and which of them succeed.

    Args:
        model: for n images; `images` and `goal` too.
        images: the originals.
        goal: what is wanted.
        pixels: how many may change, fewer than the image has.
        eps: how far each value may move.
        confidence: the margin that a success must have.
        steps: one gradient and nine queries each.
        start: images with more pixels changed, to begin with the best of these; none: with the best of all.
    """
    result, success = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
    rows, failures = torch.arange(len(images), device=images.device), torch.zeros_like(goal.labels)
    gradient, _ = input_gradient(model, images if start is None else start, goal, "margin")
    first = _ends(images, gradient, eps) if start is None else start
    worth = _worth(gradient, first - images)
    if start is not None:
        worth = worth.masked_fill((start == images).all(1).flatten(1), -torch.inf)
    chosen = worth.topk(pixels, dim=1).indices
    colours = _colours(first, chosen)
    for step in range(steps + 1):
        adversarial = paint(images, chosen[:, None], colours[:, None])[:, 0]
        gradient, logits = input_gradient(model, adversarial, goal, "margin")
        margins = goal.margin(logits)
        done = goal.reached(logits) & (margins < -confidence)
        leaving = done if step < steps else torch.ones_like(done)
        result[rows[leaving]], success[rows[leaving]] = adversarial[leaving], done[leaving]
        stay = ~leaving
        rows, images, adversarial, gradient, margins = (
            part[stay] for part in (rows, images, adversarial, gradient, margins)
        )
        chosen, colours, failures, model, goal = chosen[stay], colours[stay], failures[stay], model[stay], goal[stay]
        if not len(rows):
            break
        places, shades = _offers(images, adversarial, gradient, chosen, colours, failures, eps)
        losses, reached = _asked(model, images, goal, places, shades)
        each, best = torch.arange(len(rows), device=rows.device), best_of(losses, reached)[:, 0]
        won = losses[each, best] < margins
        chosen = torch.where(won[:, None], places[each, best], chosen)
        colours = torch.where(won[:, None, None], shades[each, best], colours)
        failures = torch.where(won, 0, failures + 1)
    return result, success


def _offers(
    images: Images,
    adversarial: Images,
    gradient: Images,
    chosen: Int[Tensor, "n k"],
    colours: Float[Tensor, "n k c"],
    failures: Int[Tensor, "n"],
    eps: float,
) -> tuple[Int[Tensor, "n p k"], Float[Tensor, "n p k c"]]:
    """Pixels and colours to ask about: first the same pixels at their ends anew, then the exchanges."""
    ends = _ends(images, gradient, eps)
    kept = _worth(gradient, adversarial - images).gather(1, chosen)
    out = kept.topk(min(OUT, kept.shape[1]), dim=1, largest=False).indices
    others = _worth(gradient, ends - images).scatter(1, chosen, -torch.inf)
    order = others.argsort(dim=1, descending=True, stable=True)[:, : others.shape[1] - chosen.shape[1]]
    turn = failures[:, None] * INTO + torch.arange(INTO, device=images.device)
    into = order.gather(1, turn % order.shape[1])
    slots, into = out.repeat_interleave(INTO, 1)[..., None], into.repeat(1, out.shape[1])
    offers = 1 + into.shape[1]
    places, shades = chosen[:, None].repeat(1, offers, 1), colours[:, None].repeat(1, offers, 1, 1)
    shades[:, 0] = _colours(ends, chosen)
    places[:, 1:] = places[:, 1:].scatter(2, slots, into[..., None])
    fresh = _colours(ends, into)[:, :, None]
    shades[:, 1:] = shades[:, 1:].scatter(2, slots[..., None].expand_as(fresh), fresh)
    return places, shades


def _asked(
    model: Model, images: Images, goal: Goal, places: Int[Tensor, "n p k"], shades: Float[Tensor, "n p k c"]
) -> tuple[Float[Tensor, "n p"], Bool[Tensor, "n p"]]:
    with torch.no_grad():
        return ask(
            model,
            images,
            goal,
            Goal.margin,
            places.shape[1],
            lambda part: paint(images[part], places[part], shades[part]),
        )


def _ends(images: Images, gradient: Images, eps: float) -> Images:
    """How far each value may go against its gradient; where that is zero, it stays."""
    high, low = (images + eps).clamp(max=1), (images - eps).clamp(min=0)
    return torch.where(gradient < 0, high, torch.where(gradient > 0, low, images))


def _worth(gradient: Images, change: Images) -> Float[Tensor, "n hw"]:
    """By how much each pixel's change lowers the margin, to first order."""
    return -(gradient * change).sum(1).flatten(1)


def _colours(images: Images, pixels: Int[Tensor, "n k"]) -> Float[Tensor, "n k c"]:
    return colours_at(images, pixels[:, None])[:, 0]
