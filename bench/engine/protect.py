"""A defense on a testbed: what it learned, the defended model, and that model's answers on clean images."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from time import perf_counter
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from bench.contracts import Artifact, Attack, Classifier, Defense, Images, Labels, Streams, drawn
from bench.core.files import write_text
from bench.core.peak_memory import PeakMemory
from bench.core.tensor_cache import cache_path, cached
from bench.data.load import Split
from bench.engine.testbed import Testbed
from bench.plugins.registry import make_defense
from bench.plugins.source_code import code_fingerprint

FRESH_DRAWS = 10
"""How often a random defense is asked about each final image; one lucky draw is no success."""

_COST = "cost."
"""Before the names of what is not learned, but tells what the learning took."""

_SPENT = "spent.json"
"""Beside the checkpoints of a training: the time and memory that it took so far."""

_PROTECTED: WeakKeyDictionary[Testbed, dict[str, Protected]] = WeakKeyDictionary()
"""What `protect` made, for as long as the testbed lives: all attacks on a defense share it."""


@dataclass(frozen=True, eq=False)
class Protected:
    """A defense at work.

    Attributes:
        defense: with its parameters.
        learned: from training images, with what that cost.
        model: the defended classifier.
        clean: its logits on the testbed's clean images, shape (draws, n, k).
    """

    defense: Defense
    learned: Artifact
    model: Classifier
    clean: Tensor

    @property
    def cost(self) -> dict[str, float]:
        """What the training took; as `Outcome.training`."""
        return cost_of(self.learned)


def protect(testbed: Testbed, text: str, progress: Callable[[float, str], None]) -> Protected:
    """The defense of this text on this testbed; made once, since all attacks share it."""
    made = _PROTECTED.setdefault(testbed, {})
    if text not in made:
        defense = make_defense(text)
        defense.check(testbed.image_shape, testbed.classes)
        made[text] = at_work(defense, learn(defense, testbed, progress), testbed)
    return made[text]


def at_work(defense: Defense, learned: Artifact, testbed: Testbed) -> Protected:
    """A defense that has learned, with its answers on the clean images."""
    model = defense.protect(testbed.bare, learned)
    clean = fresh_answers(model, testbed.images, testbed.streams.derive("judging clean"))
    return Protected(defense, learned, model, clean)


def fresh_answers(classifier: Classifier, images: Images, rng: Streams) -> Tensor:
    """Logits of shape (draws, n, k): one draw, or several fresh ones of a random classifier."""
    return drawn(classifier, images, rng, FRESH_DRAWS if classifier.random else 1)


def key_of(plugin: Attack | Defense) -> str:
    """Changes with the plugin's parameters, with the content of files that they name, and with its code."""
    values = [getattr(plugin, field.name) for field in fields(plugin)]  # type: ignore[arg-type]  # a dataclass by contract
    texts = [str(value) for value in values if isinstance(value, str | Path)]
    named = [part for text in texts for part in (text, *re.split("[;@]", text))]  # a list of models may hold files too
    files = [Path(one) for one in dict.fromkeys(named) if one and Path(one).is_file()]
    contents = [hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in files]
    return " ".join([repr(plugin), code_fingerprint(plugin), *contents])


def learn(defense: Defense, testbed: Testbed, progress: Callable[[float, str], None]) -> Artifact:
    """What the defense learns from training images, cached by all that it depends on.

    A training that was killed goes on where it was. `progress` is called only if anything is learned now.
    """
    if not defense.learns:
        return {}
    inputs = testbed.fingerprints | {"defense": key_of(defense), "seed": str(testbed.setting.seed)}
    inputs |= {"engine": f"torch {torch.__version__} {testbed.device.type}"}
    inputs.pop("data")  # the evaluated images have no part in it
    states = cache_path("learned", inputs).with_suffix(".training")

    def make() -> Artifact:
        progress(0, "training")
        started, peak, before = perf_counter(), PeakMemory(testbed.device), _spent(states)

        def spent() -> dict[str, float]:
            return {
                "seconds": before["seconds"] + perf_counter() - started,
                "peak_mib": float(np.fmax(before["peak_mib"], peak.mib)),
            }

        def tell(share: float) -> None:
            write_text(states / _SPENT, json.dumps(spent()), lasting=False)
            progress(share, "training")

        training = _Training(testbed.dataset.train, tell, testbed.device, states)
        rng = Streams.of(testbed.setting.seed, torch.arange(len(training.labels), device=testbed.device))
        learned = defense.learn(testbed.bare, training, rng.derive("training"))
        costs = spent() | {"images": len(training.loaded), "epochs": getattr(defense, "epochs", math.nan)}
        return learned | {_COST + name: torch.tensor(float(value)) for name, value in costs.items()}

    learned = cached("learned", inputs, make)
    shutil.rmtree(states, ignore_errors=True)
    return {name: tensor.to(testbed.device) for name, tensor in learned.items()}


def _spent(states: Path) -> dict[str, float]:
    """What a training took in processes that were killed."""
    try:
        told = json.loads((states / _SPENT).read_text())
        return {"seconds": float(told["seconds"]), "peak_mib": float(told["peak_mib"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"seconds": 0.0, "peak_mib": math.nan}


def cost_of(learned: Artifact) -> dict[str, float]:
    """What the training took, as `Outcome.training`; without what is not known."""
    told = sorted(name for name in learned if name.startswith(_COST) and not learned[name].isnan())
    return {name.removeprefix(_COST): float(learned[name]) for name in told}


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
