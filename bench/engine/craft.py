"""Adversarial images for one view of a model, with the queries that they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.contracts import (
    Artifact,
    Attack,
    Classifier,
    Goal,
    InputError,
    Model,
    NotApplicableError,
    Streams,
    UniversalAttack,
    answers,
)
from bench.core.checkpoints import Checkpoint
from bench.core.goals import predicted
from bench.engine.audit import audit_artifact
from bench.engine.testbed import Testbed
from bench.memory import out_of_memory

Progress = Callable[[float, str], None]
_WHOLE = ("adversarial", "eligible", "right", "forwards", "backwards")


@dataclass(frozen=True)
class Crafted:
    """The images that an attack made from those of a testbed, and the cost.

    Attributes:
        adversarial: shape and order of the testbed's images.
        eligible: which images were attacked.
        right: which images the view itself still classifies correctly (asked again, once).
        forwards, backwards: queries for each image.
        noted: facts of each image, NaN where unknown; `zero_gradient` is the share of zero gradients.
        artifact: what a universal attack learned.
        seconds: time of learning and of attacking.
    """

    adversarial: Tensor
    eligible: Tensor
    right: Tensor
    forwards: Tensor
    backwards: Tensor
    noted: dict[str, Tensor] = field(default_factory=dict)
    artifact: Artifact = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Everything as one flat dict, for the cache."""
        flat = {name: getattr(self, name) for name in _WHOLE}
        for group, values in (("noted", self.noted), ("artifact", self.artifact)):
            flat |= {f"{group}.{name}": value for name, value in values.items()}
        return flat | {f"seconds.{name}": torch.tensor(value) for name, value in self.seconds.items()}

    @classmethod
    def of_tensors(cls, flat: dict[str, Tensor], device: torch.device) -> Crafted:
        """The inverse of `tensors`."""

        def group(prefix: str) -> dict[str, Tensor]:
            return {name.split(".", 1)[1]: flat[name].to(device) for name in sorted(flat) if name.startswith(prefix)}

        whole = {name: flat[name].to(device) for name in _WHOLE}
        seconds = {name: float(value) for name, value in group("seconds.").items()}
        return cls(**whole, noted=group("noted."), artifact=group("artifact."), seconds=seconds)


def craft(
    attack: Attack, view: Classifier, testbed: Testbed, draws: int, progress: Progress, checkpoint: Checkpoint
) -> Crafted:
    """Attacks every eligible image of the testbed through `view`.

    Args:
        attack: a universal one first learns from the testbed's training images.
        view: what is attacked; where it is random, `draws` answers count as one.
        testbed: images, goal and streams.
        draws: for expectation over transformation.
        progress: called with the fraction done and what is being done.
        checkpoint: of the same work; after a kill it goes on after the last batch that was saved.
    """
    state = checkpoint.load()
    if state is None:
        started = time.perf_counter()
        learned = _learn(attack, view, testbed, draws, progress) if isinstance(attack, UniversalAttack) else {}
        state = {"artifact": learned, "parts": [], "seconds": {"learn": time.perf_counter() - started, "attack": 0.0}}
        if checkpoint.due:
            checkpoint.save(state)
    artifact, parts, seconds = _on(testbed.device, state["artifact"]), state["parts"], state["seconds"]
    if isinstance(attack, UniversalAttack):
        attack = attack.given(artifact)
    size, start = testbed.batch_size, sum(len(part["right"]) for part in parts)
    while start < len(testbed):
        started = time.perf_counter()
        rows = torch.arange(start, min(start + size, len(testbed)), device=testbed.device)
        try:
            parts.append(_batch(attack, view, testbed, rows, draws, progress))
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not out_of_memory(error):
                raise
            size //= 2
            continue
        start += len(rows)
        seconds["attack"] += time.perf_counter() - started
        if checkpoint.due:
            checkpoint.save(state)
    parts = [_on(testbed.device, part) for part in parts]
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0] if not name.startswith("noted.")}
    noted = {name: _joined(name, parts) for part in parts for name in part if name.startswith("noted.")}
    return Crafted(
        **whole,
        noted={name.removeprefix("noted."): values for name, values in sorted(noted.items())},
        artifact=artifact,
        seconds=seconds,
    )


def _on(device: torch.device, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state that was loaded is on the CPU."""
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def _batch(
    attack: Attack, view: Classifier, testbed: Testbed, rows: Tensor, draws: int, progress: Progress
) -> dict[str, Tensor]:
    """One batch of images, with streams from the start: a batch that is tried again comes out the same."""

    def tell(share: float) -> None:
        progress((float(rows[0]) + share * len(rows)) / len(testbed), "attacking")

    rng = testbed.streams[rows]
    model = Model(view, rng.derive("model"), draws, tell)
    adversarial = attack(model, testbed.images[rows], testbed.goal[rows], rng.derive("attack"))
    tell(1)
    queried = model.backwards > 0
    zero = torch.where(queried, model.zero_gradients / model.backwards.clamp(min=1), torch.nan)
    logits = answers(view, adversarial, rng.derive("recount"))
    facts = model.facts | ({"zero_gradient": zero} if bool(queried.any()) else {})
    return {
        "adversarial": adversarial,
        "eligible": model.eligible,
        "right": predicted(logits) == testbed.labels[rows],
        "forwards": model.forwards,
        "backwards": model.backwards,
        **{f"noted.{name}": values.to(torch.float32) for name, values in facts.items()},
    }


def _joined(name: str, parts: list[dict[str, Tensor]]) -> Tensor:
    """A fact over all batches; NaN for a batch where the attack did not note it."""
    return torch.cat([part.get(name, torch.full(part["eligible"].shape, torch.nan)) for part in parts])


def _learn(attack: UniversalAttack, view: Classifier, testbed: Testbed, draws: int, progress: Progress) -> Artifact:
    """The artifact of a universal attack, learned from those training images that are worth attacking."""
    if testbed.goal.targets is not None and bool((testbed.goal.targets != testbed.goal.targets[0]).any()):
        raise NotApplicableError("A universal attack needs one class for all images: --target CLASS.")
    training = testbed.training(attack.training_images if attack.learns else 0)
    if attack.learns and not len(training.images):
        raise InputError(
            f"A universal attack learns from training images, but {testbed.name} has none. For a folder, give "
            f"train=FRACTION or train=FOLDER."
        )
    targets = None if testbed.goal.targets is None else testbed.goal.targets[:1].expand(len(training.labels))
    goal = Goal(training.labels, targets, view.rejects)
    rng = training.streams.derive("learning")
    eligible = _worthwhile(attack, view, training.images, goal, rng).nonzero()[:, 0]
    if attack.learns and not len(eligible):
        raise NotApplicableError("No training image is classified correctly, so there is nothing to learn from.")
    model = Model(view, rng[eligible].derive("model"), draws, lambda share: progress(share, "learning"))
    artifact = attack.learn(model, training.images[eligible], goal[eligible], rng[eligible].derive("attack"))
    return audit_artifact(artifact)


def _worthwhile(attack: UniversalAttack, view: Classifier, images: Tensor, goal: Goal, rng: Streams) -> Tensor:
    """Which training images are worth attacking; an attack without access to the model cannot know and takes all."""
    if attack.access != "none":
        return goal.eligible(answers(view, images, rng.derive("clean")))
    return torch.ones_like(goal.labels, dtype=torch.bool) if goal.targets is None else goal.labels != goal.targets
