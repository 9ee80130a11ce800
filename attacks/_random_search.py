"""Random search: propose a change, ask once, keep it unless it is worse; all images in one batch.

The loss is the margin where the goal is untargeted and the cross-entropy where it is targeted. A state is a tuple of
tensors, one row for each image. Where the model is random, a proposal that wins is asked about again: the fresh loss
is kept, so that luck is not, and only success in both counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bench.contracts import Goal, Images, Model, Streams

from ._variants import ask, better

State = tuple[Tensor, ...]
Propose = Callable[[State, int, Streams, Images], State]
Render = Callable[[State, Images], Images]


@torch.no_grad()
def random_search(
    model: Model,
    images: Images,
    goal: Goal,
    rng: Streams,
    state: State,
    propose: Propose,
    render: Render,
    queries: int,
) -> Images:
    """The first success of each image, or the best state after `queries` queries.

    Args:
        model: under attack, for n images.
        images: the originals.
        goal: what is wanted.
        rng: one stream for each image.
        state: where the search starts, n rows.
        propose: of a state, the number of queries made so far, streams and originals; a new state.
        render: of a state and originals; the adversarial images.
        queries: for each image, the first state's included.
    """
    adversarial, rows = images.clone(), torch.arange(len(images), device=images.device)
    loss = Goal.margin if goal.targets is None else Goal.cross_entropy

    def judged(rows: Tensor | slice, state: State) -> tuple[Tensor, Tensor]:
        rendered = render(state, images[rows])[:, None]
        losses, reached = ask(model[rows], images[rows], goal[rows], loss, 1, lambda part: rendered[part])
        return losses[:, 0], reached[:, 0]

    losses, reached = judged(slice(None), state)
    if model.classifier.random:
        losses, again = judged(slice(None), state)
        reached = reached & again
    for done in range(1, queries + 1):
        leaving = reached if done < queries else torch.ones_like(reached)
        if leaving.any():
            adversarial[rows[leaving]] = render(_at(state, leaving), images[leaving])
            model[leaving].note("unconverged", ~reached[leaving])
            stay = ~leaving
            rows, images, losses, reached, state = (
                rows[stay],
                images[stay],
                losses[stay],
                reached[stay],
                _at(state, stay),
            )
            model, goal, rng = model[stay], goal[stay], rng[stay]
        if not len(rows):
            break
        model.progress(done / queries)
        proposed = propose(state, done, rng, images)
        new_losses, new_reached = judged(slice(None), proposed)
        won = better(new_losses, new_reached, losses, reached)
        if model.classifier.random and won.any():
            winners = won.nonzero()[:, 0]
            new_losses[winners], again = judged(winners, _at(proposed, winners))
            new_reached[winners] &= again
        state = tuple(torch.where(_beside(won, new), new, old) for new, old in zip(proposed, state, strict=True))
        losses, reached = torch.where(won, new_losses, losses), torch.where(won, new_reached, reached)
    return adversarial


def stepped(value: float, query: int, queries: int, stages: Sequence[tuple[int, float]]) -> float:
    """A schedule over 10,000 queries, stretched to `queries`: `value` ÷ the divisor of the last stage that began.

    Args:
        value: at the start.
        query: how many were made.
        queries: how many there will be.
        stages: (query after which it begins, divisor), ascending.
    """
    scaled = query * 10_000 // queries
    return value / next((divisor for begin, divisor in reversed(stages) if scaled > begin), 1)


def _at(state: State, rows: Tensor) -> State:
    return tuple(part[rows] for part in state)


def _beside(won: Tensor, part: Tensor) -> Tensor:
    return won.reshape(-1, *[1] * (part.dim() - 1))
