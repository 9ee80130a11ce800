"""The inner side: loads a plugin, protects a model, and answers for it; knows no label."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.contracts import Artifact, CertifiedDefense, Classifier, InputError, Streams
from bench.core import budgets
from bench.engine.protect import Protected
from bench.engine.provenance import describe_defense
from bench.models import load_model
from bench.plugins.registry import add_file, make_defense
from bench.sandbox import wire
from bench.sandbox.wire import Answer


class Server:
    """Answers one question after the other."""

    def __init__(self, questions: Connection, answers: Connection, plugin: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._questions, self._answers, self._plugin = questions, answers, plugin
        self._views: dict[str, Classifier] = {}

    def run(self) -> None:
        """Serves until the other side is gone."""
        ways = {"protect": self._protect, "answer": self._answer, "gradient": self._gradient, "certify": self._certify}
        with suppress(EOFError, OSError):
            while True:
                message, tensors = wire.receive(self._questions, 2**31)
                try:
                    answer = ways[message["do"]](message, tensors)
                except BaseException as error:  # a plugin may fail in any way, and the other side is told
                    answer = {"error": f"{type(error).__name__}: {error}"[:2000]}, {}
                wire.send(self._answers, *answer)

    def _protect(self, message: dict[str, Any], learned: Artifact) -> Answer:
        """Makes the defense of this text around the model of that one, and says what it is."""
        add_file(self._plugin)
        shape, classes = message["shape"], message["classes"]
        self.model = load_model(message["model"], num_classes=classes, image_shape=tuple(shape))
        self.defense, self.learned = make_defense(message["defense"]), learned
        if self.defense.learns and not learned:
            raise InputError("Expected what the defense learned, but the bundle has none of it.")
        self.defense.check(tuple(shape), classes)
        model = self.defense.protect(self.model, learned)
        views = self.defense.attacker_views(self.model, learned)
        self._views = {"": model} | {f"view {name}": view for name, view in views.items()}
        described = describe_defense(message["defense"], Protected(self.defense, learned, model, torch.empty(0)))
        return {
            "defense": asdict(described),
            "certifies": isinstance(self.defense, CertifiedDefense),
            "views": {
                name: {
                    "rejects": bool(view.rejects),
                    "non_finite_rejects": bool(view.non_finite_rejects),
                    "random": bool(view.random),
                    "passes": float(view.passes),
                }
                for name, view in self._views.items()
            },
        }, {}

    def _answer(self, message: dict[str, Any], tensors: dict[str, Tensor]) -> Answer:
        with torch.no_grad():
            logits = self._views[message["view"]](tensors["images"], Streams(tensors["keys"]))
        return {}, {"logits": logits}

    def _gradient(self, message: dict[str, Any], tensors: dict[str, Tensor]) -> Answer:
        images = tensors["images"].requires_grad_()
        logits = self._views[message["view"]](images, Streams(tensors["keys"]))
        (gradient,) = torch.autograd.grad(logits, images, tensors["upstream"])
        return {}, {"gradient": gradient}

    def _certify(self, message: dict[str, Any], tensors: dict[str, Tensor]) -> Answer:
        if not isinstance(self.defense, CertifiedDefense):
            raise InputError("This defense certifies nothing.")
        budget = getattr(budgets, message["budget"])(**message["limits"])
        proven = self.defense.certify(self.model, self.learned, tensors["images"], tensors["answers"], budget)
        return {}, {"proven": proven}
