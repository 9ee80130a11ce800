"""LaVAN: visible noise in a small square of one image (Karmon, Zoran, Goldberg 2018, arXiv 1801.02608).

    x' = (1 − m) · x + m · δ,   δ ← clip(δ − step_size · G(∇_δ (z_source − z_target)), 0, 1)

z are logits, source is the class that the model saw in the clean image, m a fixed small region. With cross-entropy,
CE(target) − CE(source) is the same difference, since the normalisation cancels. Without targets the best other class
takes the target's place. G is the identity, the sign, or Adam's direction.

δ always stays in the pixel range (the paper's image domain). An image is done when the wanted class has the wanted
confidence; what is kept is the image with the lowest margin on the way. `search` moves the region as well
(Rao et al. 2020, arXiv 2005.02313): after each step some neighbouring places are tried and the best is taken. Where a
region ends depends on where it started, so that a few `restarts` bring more than many steps; the preset `search` has
both.

There is no mode for a grid of places: each cell of one is `location=fixed` with its `at`.

The same noise for all images is `patch:lavan`. The preset `paper` is the protocol of Naseer et al. (arXiv
1807.01216), made for 299×299 pixels and targets: a region of 42×42 (2 % of the area; 52×52 and 60×60 are `area=0.03`
and `area=0.04`) at a random place along the border, at most 1,000 steps, until the confidence is 0.99.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bench.contracts import Attack, Goal, Images, Labels, Model, Streams

from ._paste import Placed, paste
from ._steps import Best, losses
from ._update import Mover, Update, check_updates, roughness

_WAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))


@dataclass(frozen=True)
class LaVAN(Placed, Attack):
    """Visible noise in a small region of each image.

    Attributes:
        area: share of the image's pixels that the region covers, in (0, 1].
        shape: square or disc.
        rotation: turned by a random angle between −rotation and +rotation, in degrees, 0 to 180.
        scale: each image's region has a random side between these shares of the full one, in (0, 1].
        location: anywhere, along the image's border, in one of its corners, or `at` a fixed place.
        at: row and column of the region's upper left corner in pixels, for `location=fixed`.
        steps: how many steps at the most, 1 or more.
        update: what a step follows: the `gradient`, its `sign`, or `adam`.
        step_size: length of a step in values of [0, 1] (for `gradient`: the factor), above 0.
        momentum: share of the former direction that is kept, from 0 to below 1.
        loss: `source-target` between two logits as in the paper, `margin` to the best logit of all others, or
            `cross-entropy`.
        confidence: an image is done when the wanted classes have this probability, in (0, 1].
        search: how many of the four neighbouring places are tried after each step, 0 to 4.
        stride: how far away they are in pixels, 1 or more; none: the region's side.
        restarts: how many starts there are, each at another place and with other noise, 1 or more; an image that
            reaches the goal starts no more.
        smoothness: weight of a penalty on differences between neighbouring values, 0 or more; against defenses
            that look for steep gradients.
    """

    area: float = 0.06
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    steps: int = 200
    update: Update = "sign"
    step_size: float = 0.05
    momentum: float = 0.9
    loss: Literal["source-target", "margin", "cross-entropy"] = "source-target"
    confidence: float = 0.9
    search: int = 0
    stride: int | None = None
    restarts: int = 1
    smoothness: float = 0.0

    title = "LaVAN"
    paper = "Karmon, Zoran, Goldberg, LaVAN: Localized and Visible Adversarial Noise, arXiv 1801.02608"
    access = "gradients"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"steps": 30},
        "paper": {"area": 0.02, "location": "border", "steps": 1000, "confidence": 0.99},
        "search": {"search": 4, "restarts": 5},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_updates(self.steps, self.step_size, self.momentum, self.smoothness)
        if not 0 < self.confidence <= 1:
            raise ValueError(f"confidence is a probability in (0, 1], such as 0.9; got {self.confidence}.")
        if not 0 <= self.search <= 4:
            raise ValueError(f"search is a number of neighbours from 0 to 4; got {self.search}.")
        if self.restarts < 1:
            raise ValueError(f"restarts is at least 1; got {self.restarts}.")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride is at least 1 pixel, or none for the region's side; got {self.stride}.")

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The best images of all starts."""
        best, rows = Best(images), torch.arange(len(images), device=images.device)
        unconverged = torch.zeros(len(images), device=images.device)
        for restart in range(self.restarts):
            start = rng[rows].derive(f"restart {restart}") if restart else rng
            late = self._descend(model[rows], images[rows], goal[rows], start, best, rows, restart)
            rows, late = rows[open_ := best.scores[rows] >= 0], late[open_]
            if not len(rows):
                break
        unconverged[rows] = late.float()
        model.note("unconverged", unconverged)
        return best.images

    def _descend(
        self, model: Model, images: Images, goal: Goal, rng: Streams, best: Best, rows: Labels, restart: int
    ) -> Bool[Tensor, "n"]:
        """One start; returns for which images the very last step was the best so far."""
        todo, late = _Regions(self, model, images, goal, rng), torch.zeros_like(rows, dtype=torch.bool)
        for step in range(self.steps):
            adversarial, gradient, logits = todo.look()
            best.offer(rows[todo.rows], adversarial, todo.goal.margin(logits))
            open_ = ~_sure(todo.goal, logits, self.confidence)
            todo.keep(open_)
            if not len(todo.rows):
                return late
            todo.move(gradient[open_], step)
            model.progress((restart + (step + 1) / self.steps) / self.restarts)
        adversarial, _, logits = todo.look()
        late[todo.rows] = best.offer(rows[todo.rows], adversarial, todo.goal.margin(logits))
        return late


def _sure(goal: Goal, logits: Tensor, confidence: float) -> Bool[Tensor, "n"]:
    """Which images reach the goal with this probability (without targets: of all wrong classes together)."""
    probability = goal.cross_entropy(logits).exp()
    certainty = 1 - probability if goal.targets is None else 1 / probability
    return goal.reached(logits) & (certainty >= confidence)


class _Regions:
    """The images that are not done yet, with their noise and its place."""

    def __init__(self, attack: LaVAN, model: Model, images: Images, goal: Goal, rng: Streams) -> None:
        side = attack.side(*images.shape[2:])
        self._attack, self._model, self._images, self._rng = attack, model, images, rng
        self.goal, self.rows = goal, torch.arange(len(images), device=images.device)
        self._placement = attack.place(images, rng.derive("placement"))
        self._content = rng.derive("content").uniform(images.shape[1], side, side).to(images.dtype)
        self._mover = Mover(attack.update, attack.step_size, attack.momentum)
        self._source = goal.labels
        if goal.targets is not None and attack.loss == "source-target":
            with torch.no_grad():
                self._source = model(images).reshape(model.draws, len(images), -1).mean(0).argmax(1)

    def look(self) -> tuple[Images, Float[Tensor, "n c s s"], Tensor]:
        """The images with their noise, the gradient at the noise, and the logits."""
        content = self._content.detach().requires_grad_()
        with torch.enable_grad():
            adversarial = paste(self._images, content, self._placement)
            logits = self._model(adversarial)
            loss = self._loss(logits) + self._attack.smoothness * roughness(content)
            (gradient,) = torch.autograd.grad(loss.sum(), content)
        return adversarial.detach(), gradient, logits.detach()

    def keep(self, late: Bool[Tensor, "n"]) -> None:
        """Goes on with these images alone."""
        self.rows, self.goal = self.rows[late], self.goal[late]
        self._model, self._images, self._rng = self._model[late], self._images[late], self._rng[late]
        self._placement, self._content, self._source = self._placement[late], self._content[late], self._source[late]
        self._mover.keep(late)

    def move(self, gradient: Float[Tensor, "n c s s"], step: int) -> None:
        """One step of the noise, then, where it is wanted, one of its place."""
        self._content = self._mover(self._content, gradient)
        if self._attack.search:
            self._search(step)

    def _search(self, step: int) -> None:
        """Tries some neighbouring places and takes the best, the present one included."""
        count, tried = len(self.rows), self._attack.search
        stride = self._attack.stride or self._content.shape[-1]
        order = self._rng.derive(f"search {step}").permutations(4)[:, :tried]
        ways = torch.tensor(_WAYS, device=order.device)[order].transpose(0, 1)
        shifts = torch.cat([torch.zeros_like(ways[:1]), ways * stride]).flatten(0, 1)
        owners = torch.arange(count, device=order.device).repeat(tried + 1)
        images = self._images[owners]
        places = self._placement[owners].moved(shifts, *images.shape[2:])
        with torch.no_grad():
            logits = self._model(paste(images, self._content[owners], places), of=owners)
            loss = self._loss(logits, owners).reshape(tried + 1, count)
        self._placement = places[loss.argmin(0) * count + owners[:count]]

    def _loss(self, logits: Tensor, rows: Labels | slice = slice(None)) -> Float[Tensor, "n"]:
        goal, name = self.goal[rows], self._attack.loss
        if name != "source-target" or goal.targets is None:
            return losses("cross-entropy" if name == "cross-entropy" else "margin", goal, logits)
        pair = torch.stack([self._source[rows], goal.targets], dim=1).expand(*logits.shape[:-1], 2)
        source, target = logits.gather(-1, pair).unbind(-1)
        return (source - target).reshape(-1, len(goal)).mean(0)
