"""LaVAN: visible noise in a small square of one image (Karmon, Zoran, Goldberg 2018, arXiv 1801.02608).

    x' = (1 − m) · x + m · δ,   δ ← clip(δ − step_size · G(∇_δ loss), 0, 1)

m is a small region and G the identity, the sign, or Adam's direction. The paper's loss is z_source − z_target: z are
logits, source is the class that the model saw in the clean image. With cross-entropy, CE(target) − CE(source) is the
same difference, since the normalisation cancels. Without targets the best other class takes the target's place.

δ always stays in the pixel range (the paper's image domain). An image is done when the wanted class has the wanted
confidence; what is kept is the image with the lowest margin on the way.

The paper's region lies at one random place, and most places do not fool a network. So the place is searched as well
(after Rao et al. 2020, arXiv 2005.02313; successive halving: Jamieson and Talwalkar 2016, arXiv 1502.07943): round r
asks about `places` · 2^r random regions with random noise and starts from the best 2^r of them. After every `steps`
steps the worse half of the starts is given up. An image that is fooled goes on with its best start alone, and into no
further round. More rounds only add to what fewer found: they are never weaker, image by image.

The same noise for all images is `patch:lavan`. The preset `paper` is a protocol, not an effort: that of Naseer et al.
(arXiv 1807.01216), made for 299×299 pixels and targets. One region of 42×42 pixels (2 % of the area; 52×52 and 60×60
are `area=0.03` and `area=0.04`) lies at a random place along the border, for at most 1,000 steps, until the confidence
is 0.99. It is much weaker than a few rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bench.contracts import Attack, Goal, Images, Labels, Model, Streams
from bench.memory import piece_of

from ._paste import Placed, Placement, paste
from ._steps import Best, losses
from ._update import Mover, Update, check_updates, roughness
from ._variants import ask


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
        rounds: how many rounds there are at most, 1 or more; each has twice the starts of the one before.
        places: how many random regions are tried for each start, 1 or more; one query each.
        steps: how many steps there are before each halving, and after the last one, 1 or more.
        update: what a step follows: the `gradient`, its `sign`, or `adam`.
        step_size: length of the first step in values of [0, 1] (for `gradient`: the factor), above 0.
        momentum: share of the former direction that is kept, from 0 to below 1.
        decay: whether the steps of a round shrink, linearly to zero.
        loss: `margin` to the best logit of all others, `source-target` between two logits as in the paper, or
            `cross-entropy`.
        confidence: an image is done when the wanted classes have this probability, in (0, 1].
        smoothness: weight of a penalty on differences between neighbouring values, 0 or more; against defenses
            that look for steep gradients.
    """

    area: float = 0.06
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    rounds: int = 6
    places: int = 8
    steps: int = 6
    update: Update = "sign"
    step_size: float = 0.3
    momentum: float = 0.75
    decay: bool = True
    loss: Literal["margin", "source-target", "cross-entropy"] = "margin"
    confidence: float = 0.9
    smoothness: float = 0.0

    title = "LaVAN"
    paper = "Karmon, Zoran, Goldberg, LaVAN: Localized and Visible Adversarial Noise, arXiv 1801.02608"
    access = "gradients"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "quick": {"rounds": 4},
        "paper": {
            "area": 0.02,
            "location": "border",
            "rounds": 1,
            "places": 1,
            "steps": 1000,
            "step_size": 0.05,
            "momentum": 0.9,
            "decay": False,
            "loss": "source-target",
            "confidence": 0.99,
        },
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        check_updates(self.steps, self.step_size, self.momentum, self.smoothness)
        if not 0 < self.confidence <= 1:
            raise ValueError(f"confidence is a probability in (0, 1], such as 0.9; got {self.confidence}.")
        if self.rounds < 1 or self.places < 1:
            raise ValueError(f"rounds and places are 1 or more; got {self.rounds} and {self.places}.")

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """The best images of all rounds."""
        best, rows = Best(images), torch.arange(len(images), device=images.device)
        unconverged = torch.zeros(len(images), device=images.device)
        for number in range(self.rounds):
            before, streams = best.scores[rows], rng[rows].derive(f"round {number}") if number else rng
            self._round(number, _Starts(self, model[rows], images[rows], goal[rows], streams, 2**number), best, rows)
            left = best.scores[rows] >= 0
            improved, rows = (best.scores[rows] < before)[left], rows[left]
            if not len(rows):
                break
        unconverged[rows] = improved.to(unconverged)
        model.note("unconverged", unconverged)
        return best.images

    def _round(self, number: int, starts: _Starts, best: Best, rows: Labels) -> None:
        """Descends from 2^number starts for each image, halves them again and again, and offers the best to `best`."""
        steps = self.steps * (number + 1)
        for step in range(steps):
            adversarial, logits, gradient = starts.look()
            order, rank = starts.ranked(logits)
            first = order[rank == 0]
            leading, answers = starts.goal[first], logits[..., first, :]
            best.offer(rows[starts.owners[first]], adversarial[first], leading.margin(answers))
            limit = torch.where(leading.reached(answers), 1, 2 ** (number - step // self.steps))
            limit = limit.masked_fill(_sure(leading, answers, self.confidence), 0)
            kept = order[rank < limit[(rank == 0).cumsum(0) - 1]]
            if not len(kept):
                return
            starts.keep(kept)
            starts.move(gradient[kept], 1 - step / steps if self.decay else 1.0)
            starts.model.progress((2**number * (1 + (step + 1) / steps) - 1) / (2**self.rounds - 1))
        adversarial, logits, _ = starts.look(gradients=False)
        best.offer(rows[starts.owners], adversarial, starts.goal.margin(logits))


def _sure(goal: Goal, logits: Tensor, confidence: float) -> Bool[Tensor, "n"]:
    """Which images reach the goal with this probability (without targets: of all wrong classes together)."""
    probability = goal.cross_entropy(logits).exp()
    certainty = 1 - probability if goal.targets is None else 1 / probability
    return goal.reached(logits) & (certainty >= confidence)


class _Starts:
    """Several regions of each image with their noise.

    Attributes:
        model: for all images of this round.
        owners: the image that each start belongs to, ascending.
        goal: of each start.
    """

    def __init__(self, attack: LaVAN, model: Model, images: Images, goal: Goal, rng: Streams, count: int) -> None:
        """The `count` best of `attack.places` times as many random regions."""
        self.model, self._attack, self._images, self._goal, self._rng = model, attack, images, goal, rng
        self._tries = count * attack.places
        every = torch.arange(len(images), device=images.device)
        self._source = goal.labels
        if goal.targets is not None and attack.loss == "source-target":
            with torch.no_grad():
                self._source = model(images).reshape(model.draws, len(images), -1).mean(0).argmax(1)
        numbers = torch.arange(self._tries, device=images.device).expand(len(images), -1)
        if attack.places > 1:
            with torch.no_grad():
                margins, _ = ask(model, images, goal, Goal.margin, self._tries, lambda part: self._tried(every[part]))
            numbers = margins.topk(count, largest=False).indices
        self.owners = every.repeat_interleave(count)
        self._placement, self._content = self._drawn(self.owners, numbers.flatten())
        self._mover = Mover(attack.update, attack.step_size, attack.momentum)

    @property
    def goal(self) -> Goal:  # told by the class
        return self._goal[self.owners]

    def ranked(self, logits: Tensor) -> tuple[Int[Tensor, "m"], Int[Tensor, "m"]]:
        """The starts by image and margin, and each one's rank within its image."""
        order = self.goal.margin(logits).argsort(stable=True)
        order = order[self.owners[order].argsort(stable=True)]
        return order, _occurrence(self.owners)

    def look(self, gradients: bool = True) -> tuple[Images, Tensor, Float[Tensor, "m c s s"]]:
        """The images with their noise, the logits, and, where asked for, the gradient at the noise."""
        adversarial, logits, slopes = [], [], [self._content[:0]]
        for part in self._pieces():
            owners, content = self.owners[part], self._content[part].detach().requires_grad_(gradients)
            with torch.set_grad_enabled(gradients):
                adversarial.append(paste(self._images[owners], content, self._placement[part]))
                logits.append(self.model(adversarial[-1], of=owners))
                if gradients:
                    loss = self._loss(logits[-1], owners) + self._attack.smoothness * roughness(content)
                    slopes.append(torch.autograd.grad(loss.sum(), content)[0])
        return torch.cat(adversarial).detach(), torch.cat(logits, dim=-2).detach(), torch.cat(slopes)

    def keep(self, kept: Int[Tensor, "k"]) -> None:
        """Goes on with these starts alone, in this order."""
        self.owners, self._content, self._placement = self.owners[kept], self._content[kept], self._placement[kept]
        self._mover.keep(kept)

    def move(self, gradient: Float[Tensor, "m c s s"], share: float) -> None:
        """One step of the noise, shortened to this share."""
        self._content = self._mover(self._content, gradient, share)

    def _tried(self, owners: Int[Tensor, "n"]) -> Float[Tensor, "n p c h w"]:
        numbers = torch.arange(self._tries, device=owners.device).repeat(len(owners))
        owners = owners.repeat_interleave(self._tries)
        placement, content = self._drawn(owners, numbers)
        tried = paste(self._images[owners], content, placement)
        return tried.reshape(-1, self._tries, *tried.shape[1:])

    def _drawn(self, owners: Int[Tensor, "m"], numbers: Int[Tensor, "m"]) -> tuple[Placement, Tensor]:
        """Place and noise of the random regions with these numbers."""
        rng = self._rng[owners] if self._tries == 1 else self._rng[owners].derive(numbers)
        side = self._attack.side(*self._images.shape[2:])
        content = rng.derive("content").uniform(self._images.shape[1], side, side).to(self._images.dtype)
        return self._attack.place(self._images, rng.derive("placement")), content

    def _pieces(self) -> tuple[Tensor, ...]:
        """The starts in parts that fit into memory; how an image's starts are cut depends on their number alone."""
        rank, piece = _occurrence(self.owners), piece_of(self._images.shape)
        most = int(rank.max()) + 1
        image = (rank == 0).cumsum(0) - 1
        cut = image // max(1, piece // most) * most + rank // piece
        sizes = torch.unique_consecutive(cut, return_counts=True)[1].tolist()
        return torch.split(torch.arange(len(rank), device=rank.device), sizes)

    def _loss(self, logits: Tensor, owners: Labels) -> Float[Tensor, "m"]:
        goal, name = self._goal[owners], self._attack.loss
        if name != "source-target" or goal.targets is None:
            return losses("cross-entropy" if name == "cross-entropy" else "margin", goal, logits)
        pair = torch.stack([self._source[owners], goal.targets], dim=1).expand(*logits.shape[:-1], 2)
        source, target = logits.gather(-1, pair).unbind(-1)
        return (source - target).reshape(-1, len(goal)).mean(0)


def _occurrence(owners: Int[Tensor, "m"]) -> Int[Tensor, "m"]:
    """For each start, how many of the same image stand before it; `owners` ascend."""
    return torch.arange(len(owners), device=owners.device) - torch.searchsorted(owners, owners)
