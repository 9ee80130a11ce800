"""One training loop for the whole project: reproducible for a seed, and resumed after an interruption."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.contracts import Images, InputError, Streams
from bench.core.checkpoints import Checkpoint
from bench.core.one_cycle import parameter_groups, set_learning_rate

Augment = Callable[[Images, torch.Generator], Images]
"""A minibatch and a generator (on the CPU) -> the minibatch with random changes."""

Batches = Callable[[int, torch.Generator], Sequence[Tensor]]
"""The number of an epoch and a generator (on the CPU) -> the rows of each of its minibatches, in order."""

Guard = Callable[[nn.Module], float]
"""A network in evaluation mode -> its score, such as its accuracy under attack on images that it does not learn."""

TrainingPrecision = Literal["float32", "bfloat16"]

COLLAPSED = 0.5
"""A guarded training ends when the score falls below this fraction of the best one."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A minibatch for a loss.

    Attributes:
        images: shape (n, c, h, w), augmented.
        targets: the rows of `fit`'s targets for these images, such as labels.
        rng: a stream for each image, new in each epoch.
        share: the fraction of the training that is done, in [0, 1).
    """

    images: Images
    targets: Tensor
    rng: Streams
    share: float


Loss = Callable[[nn.Module, Batch], Tensor]
"""The network, in training mode, and a minibatch -> one number."""


def cross_entropy(network: nn.Module, batch: Batch) -> Tensor:
    """The mean cross-entropy of the logits; targets are classes or probabilities of classes."""
    return F.cross_entropy(network(batch.images), batch.targets)


@contextmanager
def private_randomness(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds torch's global generators for code that cannot use others, such as initialisation and dropout.

    Afterwards the generators are as they were.
    """
    cuda = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for cuda_device in cuda:
            with torch.cuda.device(cuda_device):
                torch.cuda.manual_seed(seed)
        yield


def fit(
    network: nn.Module,
    images: Images,
    targets: Tensor,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    batch_size: int = 128,
    weight_decay: float = 0.05,
    augment: Augment | None = None,
    loss: Loss = cross_entropy,
    batches: Batches | None = None,
    guard: Guard | None = None,
    progress: Callable[[float, float], None] | None = None,
    checkpoint: Path | None = None,
    precision: TrainingPrecision = "float32",
) -> int:
    """Trains `network` in place: AdamW (arXiv 1711.05101), one cycle of the learning rate (arXiv 1708.07120).

    The rate rises to `learning_rate` over a tenth of the steps and falls to zero along a cosine. Afterwards the
    network is in evaluation mode and its weights take no gradient. On a CPU the same training with the same number of
    threads gives the same weights bit for bit, whether it was interrupted or not. On a GPU it computes in bfloat16
    where that is safe, with channels last.

    Args:
        network: on the device of `images`.
        images: shape (n, c, h, w), in [0, 1]; may be larger than the network's inputs if `augment` crops.
        targets: what `loss` needs to know about each image, shape (n, …): labels for the cross-entropy.
        epochs: how often every image is seen.
        learning_rate: the highest rate.
        seed: of order, augmentation, dropout and the streams of the images.
        batch_size: images in a step.
        weight_decay: of AdamW, on weights but not on biases or batch norms.
        augment: changes each minibatch at random.
        loss: to be minimised.
        batches: the minibatches of an epoch; by default all images in a random order, `batch_size` at a time.
        guard: called after each epoch. When its score falls below half of its best, the training ends with the weights
            of the best epoch.
        progress: called with the fraction done and the mean loss of the epoch, after each epoch and every second.
        precision: in which a CPU computes. `bfloat16`, with channels last, is nearly twice as fast where the CPU has
            instructions for it (AVX-512 BF16, AMX), and slower elsewhere. A GPU always computes in bfloat16.
        checkpoint: a file for the state of this training, which resumes there if it is called again; the file stays
            when the training is done.

    Returns:
        The number of epochs that the weights have seen.

    Raises:
        InputError: the loss is no longer finite.
    """
    optimiser = torch.optim.AdamW(parameter_groups(network, weight_decay), lr=learning_rate)
    half = images.is_cuda or precision == "bfloat16"
    run = _Run(network, optimiser, seed, images.device, torch.channels_last if half else torch.contiguous_format)
    saved, steps, reported = Checkpoint(checkpoint), math.ceil(len(images) / batch_size), monotonic()

    def shuffled(epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        return torch.split(torch.randperm(len(images), generator=generator), batch_size)

    def loss_of(rows: Tensor, share: float) -> Tensor:
        inputs = images[rows] if augment is None else augment(images[rows], run.generator)
        inputs = inputs.contiguous(memory_format=run.layout)
        batch = Batch(inputs, targets[rows], Streams.of(seed, rows).derive("fit").derive(run.epoch), share)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
            return loss(network, batch)

    with private_randomness(seed, images.device), torch.enable_grad():
        run.restore(saved.load())
        while run.epoch < epochs and not run.collapsed:
            run.order = run.order or [
                rows.to(images.device) for rows in (batches or shuffled)(run.epoch, run.generator)
            ]
            while run.done < len(run.order):
                now = run.epoch * steps + run.done * steps / len(run.order)
                set_learning_rate(optimiser, learning_rate, now, epochs * steps)
                run.step(loss_of(run.order[run.done], now / (epochs * steps)))
                if saved.due:
                    saved.save(run.state())
                if progress and run.done < len(run.order) and monotonic() - reported > 1:
                    reported = monotonic()
                    progress((run.epoch + run.done / len(run.order)) / epochs, run.mean)
            mean = run.close_epoch(guard)
            if progress:
                progress(run.epoch / epochs, mean)
        saved.save(run.state())
    return run.finish()


class _Run:
    """The state of a training: all that its next steps depend on, besides the arguments of `fit`."""

    def __init__(
        self,
        network: nn.Module,
        optimiser: torch.optim.Optimizer,
        seed: int,
        device: torch.device,
        layout: torch.memory_format,
    ) -> None:
        self.layout = layout
        self.network = _laid_out(network.requires_grad_(True).train(), self.layout)
        self.optimiser, self.device = optimiser, device
        self.generator = torch.Generator().manual_seed(seed)
        self.epoch = self.done = self.seen = 0
        self.order: list[Tensor] = []
        self.total = torch.zeros((), device=device)
        self.best: dict[str, Any] = {}
        self.collapsed = False

    @property
    def mean(self) -> float:
        """The mean loss of this epoch so far."""
        return float(self.total) / self.seen if self.seen else math.nan

    def step(self, loss: Tensor) -> None:
        """One step of the optimiser."""
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no types here
        self.optimiser.step()
        count = len(self.order[self.done])
        self.total += loss.detach() * count
        self.seen, self.done = self.seen + count, self.done + 1

    def close_epoch(self, guard: Guard | None) -> float:
        """Calls the guard and begins the next epoch; returns the mean loss of this one."""
        mean = self.mean
        if not math.isfinite(mean):
            raise InputError(f"The loss became {mean} in epoch {self.epoch + 1}; a smaller learning_rate helps.")
        self.epoch, self.order, self.done, self.seen = self.epoch + 1, [], 0, 0
        self.total = torch.zeros_like(self.total)
        if guard:
            self._evaluate(guard)
        return mean

    def _evaluate(self, guard: Guard) -> None:
        score = guard(self.network.eval())
        self.network.train()
        if score >= self.best.get("score", score):
            weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
            self.best = {"score": score, "epoch": self.epoch, "weights": weights}
        self.collapsed = score < COLLAPSED * self.best["score"]

    def finish(self) -> int:
        """Leaves the network ready for use; returns the number of epochs that its weights have seen."""
        if self.collapsed:
            self.network.load_state_dict(self.best["weights"])
        _laid_out(self.network.eval().requires_grad_(False), torch.contiguous_format)
        return int(self.best["epoch"]) if self.collapsed else self.epoch

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "counts": {name: getattr(self, name) for name in _COUNTS},
        }

    def restore(self, state: dict[str, Any] | None) -> None:
        """Resumes from a checkpoint, if there is one."""
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.device)
        self.__dict__.update(state["counts"])
        self.total, self.order = self.total.to(self.device), [rows.to(self.device) for rows in self.order]


_COUNTS = ("epoch", "done", "seen", "order", "total", "best", "collapsed")


def _laid_out(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The network with its 2D kernels in this memory format; `Module.to` fails for 3D convolutions."""
    for weight in network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=layout)
    return network
