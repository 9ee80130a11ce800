"""A defense on a scene: what it learned, the defended model, and that model's answers on clean images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from bench.cache import cached
from bench.contracts import Artifact, Attack, Classifier, Defense, Images, Labels, Streams, answers
from bench.datasets import Split
from bench.registry import code_fingerprint, make_defense
from bench.scene import Scene

FRESH_DRAWS = 10
"""How often a random defense is asked about each final image; one lucky draw is no success."""


@dataclass(frozen=True, eq=False)
class Protected:
    """A defense at work.

    Attributes:
        defense: with its parameters.
        learned: from training images; `seconds` is the time that it took.
        model: the defended classifier.
        clean: its logits on the scene's clean images, shape (draws, n, k).
    """

    defense: Defense
    learned: Artifact
    model: Classifier
    clean: Tensor


def protect(scene: Scene, text: str, progress: Callable[[float, str], None]) -> Protected:
    """The defense of this text on this scene; made once, since all attacks share it."""
    if text not in scene.protected:
        defense = make_defense(text)
        defense.check(scene.image_shape, scene.classes)
        learned = _learn(defense, scene, progress)
        model = defense.protect(scene.bare, learned)
        clean = fresh_answers(model, scene.images, scene.streams.derive("judging clean"))
        scene.protected[text] = Protected(defense, learned, model, clean)
    return scene.protected[text]


def fresh_answers(classifier: Classifier, images: Images, rng: Streams) -> Tensor:
    """Logits of shape (draws, n, k): one draw, or several fresh ones of a random classifier."""
    draws = FRESH_DRAWS if classifier.random else 1
    return torch.stack([answers(classifier, images, rng.derive(f"draw {draw}")) for draw in range(draws)])


def key_of(plugin: Attack | Defense) -> str:
    """Changes with the plugin's parameters, with the content of files that they name, and with its code."""
    values = [getattr(plugin, field.name) for field in fields(plugin)]  # type: ignore[arg-type]  # a dataclass by contract
    texts = [str(value) for value in values if isinstance(value, str | Path)]
    named = [part for text in texts for part in (text, *re.split("[;@]", text))]  # a list of models may hold files too
    files = [Path(one) for one in dict.fromkeys(named) if one and Path(one).is_file()]
    contents = [hashlib.sha256(file.read_bytes()).hexdigest()[:12] for file in files]
    return " ".join([repr(plugin), code_fingerprint(plugin), *contents])


def _learn(defense: Defense, scene: Scene, progress: Callable[[float, str], None]) -> Artifact:
    """What the defense learns from training images, cached by all that it depends on."""
    if not defense.learns:
        return {}
    inputs = scene.fingerprints | {"defense": key_of(defense), "seed": str(scene.setting.seed)}
    inputs.pop("data")  # the evaluated images have no part in it

    def make() -> Artifact:
        started = perf_counter()
        training = _Training(scene.dataset.train, lambda share: progress(share, "training"), scene.device)
        rng = Streams.of(scene.setting.seed, torch.arange(len(training.labels), device=scene.device))
        learned = defense.learn(scene.bare, training, rng.derive("training"))
        return learned | {"seconds": torch.tensor(perf_counter() - started)}

    return {name: tensor.to(scene.device) for name, tensor in cached("learned", inputs, make).items()}


@dataclass(frozen=True)
class _Training:
    """The training images as a defense gets them."""

    split: Split
    progress: Callable[[float], None]
    device: torch.device

    @property
    def labels(self) -> Labels:
        return self.split.labels.to(self.device)

    def load(self, indices: Tensor) -> Images:
        return self.split.load(indices.cpu()).to(self.device)
