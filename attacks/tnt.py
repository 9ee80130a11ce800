"""TnT: a flower as a patch, found by searching the latents of a frozen generator (Doan et al., arXiv 2111.09999).

    z* = argmin over ‖z‖∞ ≤ 2 of E over images x and placements t of loss(model(paste(x, G(z), t)))

Only the latent z changes; the generator G is fixed, so the patch always remains a picture that G can make. The patch
is universal and works anywhere in the image; the goal decides whether it is targeted.

The paper trains a WGAN-GP generator on photographs of flowers. `generator=FILE` loads such a generator, trained by
`python -m bench.attacks.train_generator`. Without a file, a formula stands in for it: it is smooth, needs no download,
and is named in the title. Departures from the paper, of which only the abstract was available: the search starts from
the best of many random latents, from several of them in one batch; the step size falls to zero; and the winner is
chosen on images and placements of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Artifact, Goal, Images, InputError, Labels, Model, Streams, UniversalAttack
from bench.memory import in_pieces, piece_of

from ._generators import LIMIT, Generator, Latents, load_generator
from ._paste import Placed, paste
from ._steps import Loss, losses
from ._update import Mover


@dataclass(frozen=True)
class TnT(Placed, UniversalAttack):
    """A learned flower that fools the model anywhere in the image, found among a generator's latents.

    Attributes:
        generator: a trained generator (.safetensors), or none for the procedural flower.
        steps: steps of Adam, ≥ 0.
        batch_size: training images per step, ≥ 1; each is tried with the patch of every restart.
        step_size: how far the first step moves a value of the latent, > 0; falls to zero by the last step.
        restarts: latents that are searched from at once, ≥ 1; the worse half is dropped twice.
        candidates: random latents that the starts are chosen from, ≥ restarts.
        loss: cross-entropy or margin.
        stop: ends early when one restart reaches the goal on this share of the latest images, in (0, 1].
        training_images: largest number of images to learn from, ≥ 1.
    """

    generator: str | None = None
    steps: int = 100
    batch_size: int = 16
    step_size: float = 0.3
    restarts: int = 16
    candidates: int = 64
    loss: Loss = "cross-entropy"
    stop: float = 1.0
    training_images: int = 500

    title = "TnT (procedural flower)"
    paper = "Doan et al. 2022, TnT Attacks! Universal Naturalistic Adversarial Patches, arXiv 2111.09999"
    note = "The flowers come from a formula, which stands in for the paper's trained generator."
    presets = {"quick": {"steps": 40, "restarts": 8, "candidates": 32}, "paper": {"steps": 500, "area": 0.05}}
    access = "gradients"

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.batch_size, self.restarts, self.training_images) < 1 or self.steps < 0 or self.step_size <= 0:
            raise ValueError(
                "Expected batch_size, restarts and training_images ≥ 1, steps ≥ 0 and step_size > 0, but got "
                f"{self.batch_size}, {self.restarts}, {self.training_images}, {self.steps} and {self.step_size}."
            )
        if self.candidates < self.restarts or not 0 < self.stop <= 1:
            raise ValueError(
                f"Expected candidates ≥ restarts and stop in (0, 1], but got {self.candidates} candidates for "
                f"{self.restarts} restarts and stop {self.stop}."
            )
        if self.generator is not None:
            object.__setattr__(self, "title", "TnT")
            object.__setattr__(self, "note", f"Flowers of the generator {Path(self.generator).name}.")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError if the patch or the channels do not fit, or the generator cannot be loaded."""
        super().check(image_shape, num_classes)
        if image_shape[0] not in (1, 3):
            raise InputError(f"Expected images of 1 or 3 channels for a flower, but they have {image_shape[0]}.")
        load_generator(self.generator)

    def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Artifact:
        """Searches the latents; the artifact holds the best one and the generator's picture of it.

        Returns:
            `latent` of shape (d,), every value in [−2, 2]; `patch` of shape (3, side, side), in [0, 1].
        """
        trial = _Trial(self, load_generator(self.generator).to(images), model, images, goal, rng)
        size = trial.generator.latent
        drawn = rng[:1].derive("latents").normal(self.candidates, size)[0].to(images.dtype).clamp(-LIMIT, LIMIT)
        starts = drawn[trial.ranking(drawn, "candidates", 2 * self.batch_size)[: self.restarts]]
        finalists = torch.cat([self._search(trial, starts), starts[:1]])
        latent = finalists[trial.ranking(finalists, "final", 8 * self.batch_size)[0]]
        return {"latent": latent, "patch": trial.generator(latent[None])[0]}

    def apply(self, artifact: Artifact, images: Images, goal: Goal, rng: Streams) -> Images:
        """Pastes the flower into each image, at the places that `patch` and the controls use too."""
        patch = self.fitted(artifact["patch"][None].to(images), images.shape[1:])
        return paste(images, patch[0], self.place(images, rng.derive("placement")))

    def fitted(self, pictures: Float[Tensor, "r 3 s s"], image_shape: torch.Size) -> Float[Tensor, "r c t t"]:
        """The pictures for such images: grey if those are, and at most at the resolution of the patch."""
        channels, height, width = image_shape
        if channels == 1:
            pictures = pictures.mean(1, keepdim=True)
        side = self.side(height, width)
        if side >= pictures.shape[-1]:
            return pictures
        return F.interpolate(pictures, (side, side), mode="bilinear", antialias=True)

    def _search(self, trial: _Trial, latents: Latents) -> Float[Tensor, "left d"]:
        """Adam on each restart; drops the worse half of them after a quarter and again after half of the steps."""
        move = Mover("adam", self.step_size / (2 * LIMIT), momentum=0.9)
        loss = reached = torch.empty(0, len(latents), device=latents.device)
        for step in range(self.steps):
            gradient, outcome = trial.gradient(latents, f"step {step}", self.batch_size)
            shares = move(0.5 + latents / (2 * LIMIT), gradient, 1 - step / self.steps)  # clamped to [0, 1]
            latents = ((2 * shares - 1) * LIMIT).clamp(-LIMIT, LIMIT)
            loss = torch.cat([loss, outcome[0][None]])[-_LATEST:]
            reached = torch.cat([reached, outcome[1][None]])[-_LATEST:]
            trial.model.progress((step + 1) / self.steps)
            if len(reached) == _LATEST and bool((reached.mean(0) >= self.stop).any()):
                break
            if step + 1 in (self.steps // 4, self.steps // 2) and step + 1 >= _LATEST:
                rows = loss.mean(0).argsort(stable=True)[: (len(latents) + 1) // 2]
                latents, loss, reached = latents[rows], loss[:, rows], reached[:, rows]
                move.keep(rows)
        return latents


_LATEST = 10
"""Number of latest steps over which loss and share of successes are averaged."""


@dataclass(frozen=True)
class _Trial:
    """Evaluates latents on training images, all latents on the same images at the same places."""

    attack: TnT
    generator: Generator
    model: Model
    images: Images
    goal: Goal
    rng: Streams

    def gradient(self, latents: Latents, label: str, count: int) -> tuple[Latents, tuple[Tensor, Tensor]]:
        """The gradient of each latent's own loss, and its `outcome`."""

        def work(part: slice) -> Tensor:
            variable = latents[part].detach().requires_grad_()
            with torch.enable_grad():
                loss, reached = self.outcome(variable, label, count)
                (gradient,) = torch.autograd.grad(loss.sum(), variable)
            return torch.cat([gradient, loss.detach()[:, None], reached.to(gradient)[:, None]], 1)

        values = in_pieces(work, len(latents), self._piece(count))
        return values[:, :-2], (values[:, -2], values[:, -1])

    @torch.no_grad()
    def ranking(self, latents: Latents, label: str, count: int) -> Labels:
        """The latents from best to worst, by successes on `count` images and then by loss."""
        count = min(count, len(self.images))

        def work(part: slice) -> Tensor:
            loss, reached = self.outcome(latents[part], label, count)
            return torch.stack([loss, reached.to(loss)], 1)

        loss, reached = in_pieces(work, len(latents), self._piece(count)).unbind(1)
        by_loss = loss.argsort(stable=True)
        return by_loss[reached[by_loss].argsort(stable=True, descending=True)]

    def _piece(self, count: int) -> int:
        return max(1, piece_of(self.images.shape) // count)

    def outcome(self, latents: Latents, label: str, count: int) -> tuple[Float[Tensor, "r"], Float[Tensor, "r"]]:
        """Mean loss and share of successes of each latent, over the same `count` images and places."""
        rows = self.rng[:1].derive(label).permutations(len(self.images))[0][:count]
        placement = self.attack.place(self.images[rows], self.rng[rows].derive(label))
        each = torch.arange(len(rows), device=rows.device).repeat(len(latents))
        patches = self.attack.fitted(self.generator(latents), self.images.shape[1:]).repeat_interleave(len(rows), 0)
        pasted = paste(self.images[rows][each], patches, placement[each])
        goal, logits = self.goal[rows[each]], self.model(pasted, of=rows[each])
        loss = losses(self.attack.loss, goal, logits).reshape(len(latents), -1)
        return loss.mean(1), goal.reached(logits).float().reshape(len(latents), -1).mean(1)
