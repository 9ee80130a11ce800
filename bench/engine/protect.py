"""A defense on a testbed: what it learned, the defended model, and that model's answers on clean images."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from bench.contracts import Artifact, Classifier, Defense, Images, Labels, Streams, answers_of_draws
from bench.core.checkpoints import Checkpoint
from bench.core.peak_memory import PeakMemory
from bench.core.tensor_cache import cache_path, cached
from bench.data.load import Split
from bench.engine.audit import audit_artifact
from bench.engine.interference import unchanged
from bench.engine.prepare import full_float32, only_calls
from bench.engine.testbed import Testbed
from bench.plugins.fingerprints import plugin_key
from bench.plugins.fresh_copy import fresh_copy
from bench.plugins.registry import make_defense

FRESH_DRAWS = 10
"""How often a random defense is asked about each final image; one lucky draw is no success."""

_ARTIFACT, _COST = "artifact.", "cost."
"""Prefixes in the cache: of what was learned, and of what learning it cost."""

_PROTECTED: WeakKeyDictionary[Testbed, dict[str, Protected]] = WeakKeyDictionary()
"""What `protect` made, for as long as the testbed lives: all attacks on a defense share it."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What a defense learned.

    Attributes:
        artifact: what its `protect` is given.
        cost: of learning it; as `Outcome.training`.
    """

    artifact: Artifact = field(default_factory=dict)
    cost: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Protected:
    """A defense at work.

    Attributes:
        defense: with its parameters.
        learned: from training images.
        model: the defended classifier, as attackers use it.
        clean: its logits on the testbed's clean images, shape (draws, n, k).
        cost: of the training; as `Outcome.training`.
        make_unused: makes the defended classifier again, one that has been shown no image.
    """

    defense: Defense
    learned: Artifact
    model: Classifier
    clean: Tensor
    cost: dict[str, float] = field(default_factory=dict)
    make_unused: Callable[[], Classifier] | None = None

    def unused(self) -> Classifier:
        """The defended classifier for the judge: a defense that remembers images has seen none here."""
        return self.make_unused() if self.make_unused else self.model


@full_float32()
def protect(testbed: Testbed, text: str, progress: Callable[[float, str], None]) -> Protected:
    """The defense of this text on this testbed; made once, since all attacks share it."""
    made = _PROTECTED.setdefault(testbed, {})
    if text not in made:
        defense = make_defense(testbed.setting.local(text))
        defense.check(testbed.image_shape, testbed.classes)
        with unchanged(testbed, [defense]):
            made[text] = at_work(defense, testbed, learn(defense, testbed, progress))
    return made[text]


def at_work(defense: Defense, testbed: Testbed, learned: Learned | None = None) -> Protected:
    """A defense that has learned, with its answers on the clean images.

    Args:
        defense: what protects the testbed's model.
        testbed: model and clean images.
        learned: what it learned, if it learns.
    """
    learned = learned or Learned()

    network = testbed.prepared if only_calls(defense) else testbed.bare

    def from_fresh_copy() -> Classifier:
        return model if model is network else fresh_copy(defense).protect(network, learned.artifact)

    model = defense.protect(network, learned.artifact)
    if not isinstance(model, Classifier) or model.num_classes != testbed.classes:
        raise TypeError(
            f"expected `protect` to return a Classifier for {testbed.classes} classes, but got {model!r:.200}"
        )
    clean = fresh_answers(model, testbed.images, testbed.streams.derive("judging clean"))
    return Protected(defense, learned.artifact, model, clean, learned.cost, from_fresh_copy)


def fresh_answers(classifier: Classifier, images: Images, rng: Streams) -> Tensor:
    """Logits of shape (draws, n, k): one draw, or several fresh ones of a random classifier.

    Logits that are not finite are left as they are, unless the classifier says that they mean rejection.

    Raises:
        ValueError: the logits do not have the shape that the classifier promises.
    """
    logits = answers_of_draws(classifier, images, rng, FRESH_DRAWS if classifier.random else 1)
    expected = (len(logits), len(images), classifier.num_classes + classifier.rejects)
    if logits.shape != expected or not logits.is_floating_point():
        raise ValueError(
            f"expected logits of shape {expected[1:]}, but got {tuple(logits.shape[1:])} of type {logits.dtype}"
        )
    if classifier.rejects and classifier.non_finite_rejects:
        rejection = torch.zeros(expected[-1], dtype=logits.dtype, device=logits.device)
        rejection[-1] = 1
        logits = logits.where(logits.isfinite().all(-1, keepdim=True), rejection)
    return logits


def learn(defense: Defense, testbed: Testbed, progress: Callable[[float, str], None]) -> Learned:
    """What the defense learns from training images, cached by all that it depends on.

    A training that was killed goes on where it was. `progress` is called only if anything is learned now.
    """
    if not defense.learns:
        return Learned()
    inputs = testbed.fingerprints | {"defense": plugin_key(defense), "seed": str(testbed.setting.seed)}
    inputs |= {"model": testbed.setting.model, "engine": f"torch {torch.__version__} {testbed.device.type}"}
    inputs.pop("data")  # the evaluated images have no part in it
    states = cache_path("learned", inputs).with_suffix(".training")

    def make() -> dict[str, Tensor]:
        progress(0, "training")
        started, peak = perf_counter(), PeakMemory(testbed.device)
        spending = Checkpoint(states / "spent.pt")  # the time and memory that interrupted trainings took
        before = spending.load() or {"seconds": 0.0, "peak_mib": math.nan}

        def spent() -> dict[str, float]:
            return {
                "seconds": before["seconds"] + perf_counter() - started,
                "peak_mib": float(np.fmax(before["peak_mib"], peak.mib)),
            }

        def tell(share: float) -> None:
            spending.save(spent())
            progress(share, "training")

        training = _Training(testbed.dataset.train, tell, testbed.device, states)
        rng = Streams.of(testbed.setting.seed, torch.arange(len(training.labels), device=testbed.device))
        with unchanged(testbed, [defense]):
            artifact = audit_artifact(defense.learn(testbed.bare, training, rng.derive("training")))
        epochs = math.nan if defense.epochs is None else defense.epochs
        cost = spent() | {"images": len(training.loaded), "epochs": epochs}
        tensors = {_ARTIFACT + name: tensor for name, tensor in artifact.items()}
        return tensors | {_COST + name: torch.tensor(float(value)) for name, value in cost.items()}

    cached_tensors = cached("learned", inputs, make)
    shutil.rmtree(states, ignore_errors=True)
    return Learned(
        artifact={name: tensor.to(testbed.device) for name, tensor in _with_prefix(_ARTIFACT, cached_tensors)},
        cost={name: float(value) for name, value in _with_prefix(_COST, cached_tensors) if not value.isnan()},
    )


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    return [(name.removeprefix(prefix), tensors[name]) for name in sorted(tensors) if name.startswith(prefix)]


@dataclass(frozen=True)
class _Training:
    """The training images as a defense gets them, and which of them it took."""

    split: Split
    progress: Callable[[float], None]
    device: torch.device
    checkpoint: Path
    loaded: set[int] = field(default_factory=set)

    @property
    def labels(self) -> Labels:
        return self.split.labels.to(self.device)

    def load(self, indices: Tensor) -> Images:
        self.loaded.update(indices.tolist())
        return self.split.load(indices.cpu()).to(self.device)
