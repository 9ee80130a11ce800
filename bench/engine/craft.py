"""Adversarial images for one view of a model, with the queries that they cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

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
from bench.engine.testbed import Testbed, TrainingImages
from bench.memory import out_of_memory

Progress = Callable[[float, str], None]
_WHOLE = ("adversarial", "eligible", "right", "forwards", "backwards")


@dataclass(frozen=True)
class Crafted:
    """The images that an attack made from those of a testbed, and the cost.

    Attributes:
        adversarial: shape and order of the testbed's images.
        eligible: which images were attacked; the others are as they were.
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

    def spread(self, rows: Tensor, testbed: Testbed) -> Crafted:
        """The same for all images of the testbed, if so far it is of these rows alone."""

        def among(everyone: Tensor, values: Tensor) -> Tensor:
            return everyone.index_copy(0, rows, values)

        nothing = torch.zeros_like(testbed.labels)
        unknown = torch.full(nothing.shape, torch.nan, device=nothing.device)
        return replace(
            self,
            adversarial=among(testbed.images, self.adversarial),
            eligible=among(nothing.bool(), self.eligible),
            right=among(nothing.bool(), self.right),
            forwards=among(nothing, self.forwards),
            backwards=among(nothing, self.backwards),
            noted={name: among(unknown, values) for name, values in self.noted.items()},
        )


def craft(
    attack: Attack,
    view: Classifier,
    testbed: Testbed,
    rows: Tensor,
    draws: int,
    progress: Progress,
    checkpoint: Checkpoint,
) -> Crafted:
    """Attacks the eligible ones among some images of the testbed through `view`.

    Args:
        attack: a universal one first learns from the testbed's training images.
        view: what is attacked; where it is random, `draws` answers count as one.
        testbed: images, goal and streams.
        rows: the places of the images to attack; the result is of these alone.
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
    while start < len(rows):
        started = time.perf_counter()
        batch, tell = rows[start : start + size], _share_of(progress, start, size, len(rows))
        try:
            parts.append(_batch(attack, view, testbed, batch, draws, tell))
        except (MemoryError, RuntimeError) as error:
            if size == 1 or not out_of_memory(error):
                raise
            size //= 2
            continue
        start += len(batch)
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


def _share_of(progress: Progress, start: int, size: int, whole: int) -> Callable[[float], None]:
    """What a batch calls with the share of it that is done."""
    return lambda share: progress((start + share * min(size, whole - start)) / whole, "attacking")


def _batch(
    attack: Attack, view: Classifier, testbed: Testbed, rows: Tensor, draws: int, tell: Callable[[float], None]
) -> dict[str, Tensor]:
    """One batch of images, with streams from the start: a batch that is tried again comes out the same."""
    rng = testbed.streams[rows]
    model = Model(view, rng.derive("model"), draws, tell)
    adversarial = attack(model, testbed.images[rows], testbed.goal[rows], rng.derive("attack"))
    tell(1)
    queried = model.backwards > 0
    zero = torch.where(queried, model.zero_gradients / model.backwards.clamp(min=1), torch.nan)
    exact = testbed.prepared if view is testbed.crafting else view  # no success in bfloat16 alone
    logits = answers(exact, adversarial, rng.derive("recount"))
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


def training_images(attack: UniversalAttack, testbed: Testbed) -> TrainingImages:
    """What a universal attack learns from; none if it does not learn."""
    return testbed.training(attack.training_images if attack.learns else 0)


def training_goal(training: TrainingImages, model: Classifier, testbed: Testbed) -> Goal:
    """The testbed's goal for training images, where one class is wanted for all of them or none."""
    targets = None if testbed.goal.targets is None else testbed.goal.targets[:1].expand(len(training.labels))
    return Goal(training.labels, targets, model.rejects)


def _learn(attack: UniversalAttack, view: Classifier, testbed: Testbed, draws: int, progress: Progress) -> Artifact:
    """The artifact of a universal attack, learned from those training images that are worth attacking."""
    if testbed.goal.targets is not None and bool((testbed.goal.targets != testbed.goal.targets[0]).any()):
        raise NotApplicableError("A universal attack needs one class for all images: --target CLASS.")
    training = training_images(attack, testbed)
    if attack.learns and not len(training.images):
        raise InputError(
            f"A universal attack learns from training images, but {testbed.name} has none. For a folder, give "
            f"train=FRACTION or train=FOLDER."
        )
    goal = training_goal(training, view, testbed)
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
