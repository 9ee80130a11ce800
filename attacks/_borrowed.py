"""Adapters for attacks of other libraries: their calls, their random numbers and their results.

A library expects a plain network and calls it as it likes. `AsModule` is that network: every row is charged to an
image of the batch, so query counts, random classifiers, draws and rejection work as they do for our own attacks.
Whatever the library returns is pulled into our budget first.
"""

from __future__ import annotations

import ast
import inspect
import random
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from bench.contracts import L2, Attack, Budget, Goal, Images, Labels, Linf, Logits, Model, Pixels, Streams

from ._steps import L2Ball, LinfBall


class AsModule(nn.Module):
    """The model under attack as a plain network: images -> logits of shape (n, num_classes).

    A call with as many rows as there are images is taken to mean row i for image i. A library that passes only some
    of them does not say which, so each row is then assigned to the image with the nearest original (Euclidean). This
    is correct as long as changes are small compared with the distances between originals; the total count is always
    exact.

    The draws of a random classifier are averaged as log-probabilities. Rejection counts as the true class (the
    larger of the two logits), since both are failures for the attacker.
    """

    def __init__(self, model: Model, images: Images, goal: Goal) -> None:
        super().__init__()
        self._model, self._goal, self._images = model, goal, images
        self._originals = images.flatten(1)
        self.num_classes, self.draws = model.num_classes, model.draws
        self.eval()

    def __getitem__(self, rows: Labels) -> AsModule:
        """The network for some of the images."""
        return AsModule(self._model[rows], self._images[rows], self._goal[rows])

    @torch.no_grad()
    def reached(self, images: Images) -> Bool[Tensor, "n"]:
        """Which of these images (one per original) reach the goal."""
        return self._goal.reached(self._model(images.to(self._images)))

    def forward(self, images: Images) -> Logits:
        """Logits, with a graph only if the images require a gradient."""
        dtype, images = images.dtype, images.to(self._originals)
        owners = self._owners(images)
        with torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            logits = self._model(images, of=owners)
            if logits.dim() == 3:
                logits = logits.log_softmax(-1).mean(0)
            return self._without_rejection(logits, owners).to(dtype)

    @torch.no_grad()
    def _owners(self, images: Images) -> Labels:
        if len(images) == len(self._originals):
            return torch.arange(len(images), device=images.device)
        similarity = images.flatten(1) @ self._originals.T - self._originals.square().sum(1) / 2
        return similarity.argmax(1)

    def _without_rejection(self, logits: Float[Tensor, "n more"], owners: Labels) -> Logits:
        if not self._goal.rejects:
            return logits
        true_class = nn.functional.one_hot(self._goal.labels[owners], logits.shape[1] - 1).bool()
        return torch.where(true_class, torch.maximum(logits[:, :-1], logits[:, -1:]), logits[:, :-1])


Run = Callable[[AsModule, Images, Goal], Images]
"""One run of a library's attack on one batch."""


class Borrowed(Attack):
    """An attack of another library. The library draws its own random numbers, so results depend on the batch."""

    per_image = False

    @abstractmethod
    def run(self, network: AsModule, images: Images, goal: Goal) -> Images:
        """The library's result, which need not keep the budget.

        Raises:
            NotApplicableError: the goal is targeted and the library has no targeted form of this attack.
        """

    @final
    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """Runs the library once, pulls its result into the budget, and notes where that is "unconverged"."""
        with isolated(rng), frozen(model.classifier):
            network = AsModule(model, images, goal)
            # pyautoattack works in float32 and calls `view` on its images.
            contiguous = images.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
            adversarial = within(self.budget, images, self.run(network, contiguous, goal))
            model.note("unconverged", (~network.reached(adversarial)).float())
        return adversarial


def in_turn(runs: Sequence[Run], network: AsModule, images: Images, goal: Goal, budget: Budget) -> Images:
    """Each run attacks the images that the runs before it failed on; where all fail, the first run's result stays."""
    best = within(budget, images, runs[0](network, images, goal))
    for run in runs[1:]:
        rows = (~network.reached(best)).nonzero()[:, 0]
        if not len(rows):
            break
        adversarial = within(budget, images[rows], run(network[rows], images[rows], goal[rows]))
        success = network[rows].reached(adversarial)
        best[rows[success]] = adversarial[success]
    return best


def within(budget: Budget, images: Images, adversarial: Images) -> Images:
    """The adversarial images pulled into the budget; the originals where that is impossible or a value is NaN."""
    adversarial = adversarial.detach().to(images)
    if isinstance(budget, Linf):
        adversarial = LinfBall(budget.eps).project(adversarial, images)
    elif isinstance(budget, L2):
        adversarial = L2Ball(budget.eps).project(adversarial, images)
    else:
        adversarial = adversarial.clamp(0, 1)
    return torch.where(budget.allows(images, adversarial)[:, None, None, None], adversarial, images)


@contextmanager
def isolated(rng: Streams) -> Iterator[None]:
    """Seeds the global generators of Python, NumPy and torch from the streams, and restores them afterwards."""
    limit = 2**31 - 1
    seed = int(rng.derive("library").integers(limit).sum()) % limit
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # libraries draw from it
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002  # the same
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002  # the same


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Turns off the weights' gradients meanwhile: some libraries call `.backward()`, which would leave them behind."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def budget_of(norm: Literal["linf", "l2", "pixels"], eps: float) -> Budget:
    """The budget of that norm: `eps` is the largest value (linf) or the length (l2) of a change, or a pixel count."""
    if norm == "pixels":
        return Pixels(int(eps))
    return Linf(eps) if norm == "linf" else L2(eps)


def read_settings(text: str, kind: type) -> dict[str, Any]:
    """`steps=100;loss='logits'` -> arguments for `kind`; raises ValueError for an argument that it does not take."""
    known = list(inspect.signature(kind).parameters)
    settings: dict[str, Any] = {}
    for item in filter(None, text.split(";")):
        name, _, value = item.partition("=")
        if name not in known or not value:
            raise ValueError(f"Expected name=value, where name is one of {', '.join(known)}, but got {item!r}.")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value
    return settings
