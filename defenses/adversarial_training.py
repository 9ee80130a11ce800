"""Adversarial training: the network learns from attacked images in addition to clean ones.

Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples" (arXiv 1412.6572); evaluated by Himbitski,
Varashevich, Kovalev 2024 (paper 003, section IV).

    loss = α · CE(f(x), y) + (1 − α) · CE(f(x'), y),        x' attacks the current weights, anew at every step

    fgsm      x' = clip(x + eps · sign ∇CE)
    rs-fgsm   from a random start within eps, one step of 1.25 eps (arXiv 2001.03994)
    n-fgsm    one step of eps from x + η, η uniform within 2 eps, without a bound but [0, 1] (arXiv 2202.01181)
    pgd       from a random start, `steps` steps of 2.5 eps / `steps` (arXiv 1706.06083)
    patch     the same on a square of `area` at a random place, with any colours (after Wu, Tong, Vorobeychik,
              arXiv 1909.09552, who also search for the place). With `search`, after each step the patch tries to
              move by a sixteenth of the image in a random direction, and stays where the loss is larger (the random
              location optimisation of Rao, Stutz, Schiele, arXiv 2005.02313)

Batch norms: attacks run on the network in evaluation mode and do not change it; clean and attacked images then pass
through in one batch in training mode, so the statistics are over both.

One-step training can collapse: from one epoch to the next, the network resists only that single step and nothing else
(arXiv 2001.03994). So after each epoch, held-out images are attacked with ten steps; once less than half of the best
accuracy is left, training stops with the weights of the best epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Examples, Images, Labels, Streams
from bench.training import Batch

from ._ascent import ascend, loss_gradient
from ._examples import packed
from ._ranges import within
from ._squares import Mask, squares
from ._training import Trained, cross_entropies, evaluating

GUARD_STEPS = 10


@dataclass(frozen=True)
class AdversarialTraining(Trained):
    """Adversarial training: learns from attacked images in addition to clean ones.

    Attributes:
        attack: the attack to train against.
        eps: how far each value of an image may move, in (0, 1]; in a patch, values change freely.
        area: share of the image that a patch covers, in (0, 1].
        search: whether the patch of `patch` searches for its place; each step then costs two more forward passes.
        steps: number of steps of `pgd` and `patch`, at least 1.
        clean_share: α, the weight of the clean images, in [0, 1].
        held_out: number of training images held out to detect a collapse; 0 turns this off.
    """

    attack: Literal["fgsm", "rs-fgsm", "n-fgsm", "pgd", "patch"] = "n-fgsm"
    eps: float = 8 / 255
    area: float = 0.1
    search: bool = False
    steps: int = 7
    clean_share: float = 0.5
    held_out: int = 128

    title = "Adversarial training"
    paper = "Goodfellow et al., arXiv 1412.6572; Himbitski et al. 2024"
    tuned_on = ("linf",)
    presets = {
        "quick": {"epochs": 3},
        "paper": {"attack": "fgsm", "eps": 0.01, "epochs": 100, "training_images": 50_000},
        "pgd": {"attack": "pgd"},
        "patch": {"attack": "patch"},
        "patch-location": {"attack": "patch", "search": True},
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        within("eps", self.eps, 0, 1, "8/255 is the default")
        within("an area", self.area, 1e-6, 1, "0.1 is the default")
        within("steps", self.steps, 1, 1000, "7 is the default")
        within("a share of clean images", self.clean_share, 0, 1, "0.5 is the default")
        within("held_out", self.held_out, 0, self.training_images - 1, "some images must remain to train on")
        if self.attack == "patch":
            object.__setattr__(self, "tuned_on", ("patch",))

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """The weights, and as "epochs_kept" the number of their epochs, which is smaller after a collapse."""
        images, labels, streams = self.examples(training, rng)
        network = self.initial_network(model, images, streams)
        held = min(self.held_out, len(images) // 2)
        watch = streams[:held].derive("watch")

        def robust_accuracy(network: nn.Module) -> float:
            attacked = self.attacked(network, images[:held], labels[:held], watch, GUARD_STEPS)
            with torch.no_grad():
                return float((network(attacked, watch).argmax(1) == labels[:held]).float().mean())

        settings = {"loss": self.loss, "guard": robust_accuracy if held else None}
        epochs = self.train(network, images[held:], labels[held:], training, streams[held:], **settings)
        return packed(network) | {"epochs_kept": torch.tensor(epochs)}

    def loss(self, network: nn.Module, batch: Batch) -> Tensor:
        """The cross-entropies of clean and attacked images, weighted by α and 1 − α."""
        attacked = self.attacked(network, batch.images, batch.targets, batch.rng)
        return cross_entropies(network, batch.images, attacked, batch.targets, batch.rng, self.clean_share)

    def attacked(
        self, network: nn.Module, images: Images, labels: Labels, rng: Streams, steps: int | None = None
    ) -> Images:
        """Images attacked as in training or, with `steps`, by so many small steps from a random start."""
        if self.attack == "n-fgsm" and steps is None:
            noise = rng.derive("noise").uniform(*images.shape[1:], low=-2 * self.eps, high=2 * self.eps)
            noisy = (images + noise.to(images.dtype)).clamp(0, 1)
            with evaluating(network):
                return (noisy + self.eps * loss_gradient(network, noisy, labels, rng).sign()).clamp(0, 1)
        mask = squares(images, rng.derive("place"), self.area) if self.attack == "patch" else None
        eps = 1.0 if self.attack == "patch" else self.eps
        single = {"fgsm": eps, "rs-fgsm": 1.25 * eps} if steps is None else {}
        steps = 1 if self.attack in single else steps or self.steps
        step_size = single.get(self.attack, min(eps, 2.5 * eps / steps))
        random_start = self.attack != "fgsm" or self.attack not in single
        if mask is None or not self.search:
            return ascend(
                network,
                images,
                labels,
                rng,
                eps=eps,
                steps=steps,
                step_size=step_size,
                random_start=random_start,
                mask=mask,
            )
        attacked = images
        for step in range(steps):
            attacked = ascend(
                network, attacked, labels, rng, eps=1, steps=1, step_size=step_size, random_start=not step, mask=mask
            )
            attacked, mask = moved(network, images, attacked, labels, mask, rng.derive("move").derive(step))
        return attacked


def moved(
    network: nn.Module, images: Images, attacked: Images, labels: Labels, mask: Mask, rng: Streams
) -> tuple[Images, Mask]:
    """The patches with their masks, a sixteenth of the image further where that raises the loss and fits.

    Args:
        network: called in evaluation mode.
        images: without the patch, shape (n, c, h, w).
        attacked: with the patch, of the same shape.
        labels: shape (n,).
        mask: where the patch is.
        rng: one stream for each image, for the direction.
    """
    stride = max(1, min(images.shape[2:]) // 16)
    steps = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]], device=images.device) * stride
    shifts = steps[rng.integers(4)]
    places, content = _shifted(mask, shifts), _shifted(attacked, shifts)
    candidate = torch.where(places, content, images)
    with evaluating(network), torch.no_grad():
        before, after = (F.cross_entropy(network(one, rng), labels, reduction="none") for one in (attacked, candidate))
    better = ((after > before) & _stays(mask, shifts))[:, None, None, None]
    return torch.where(better, candidate, attacked), torch.where(better, places, mask)


def _shifted(values: Tensor, shifts: Int[Tensor, "n 2"]) -> Tensor:
    """The values of each image moved down and to the right by its shift; what leaves comes back on the other side."""
    rows, columns = (
        (torch.arange(length, device=values.device) - shift[:, None]) % length
        for length, shift in zip(values.shape[2:], shifts.unbind(1), strict=True)
    )
    everyone = torch.arange(len(values), device=values.device)[:, None, None]
    return values.movedim(1, -1)[everyone, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _stays(mask: Mask, shifts: Int[Tensor, "n 2"]) -> Bool[Tensor, "n"]:
    """Whether the patch remains in one piece inside the image."""
    margin = int(shifts.abs().max()) if len(shifts) else 0
    inside = _shifted(F.pad(mask, [margin] * 4), shifts)
    kept = inside[:, :, margin : margin + mask.shape[2], margin : margin + mask.shape[3]]
    same: Bool[Tensor, "n"] = kept.flatten(1).sum(1) == mask.flatten(1).sum(1)
    return same
