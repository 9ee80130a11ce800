"""The outer side: a defense and its models that look like any other, and ask a box for every number."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, cast

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bench.contracts import (
    Artifact,
    Budget,
    CertifiedDefense,
    Classifier,
    Defense,
    Images,
    Labels,
    Logits,
    Streams,
    answers,
)
from bench.errors import RefusedError
from bench.sandbox.process import Box


class Remote(Classifier):
    """A classifier whose answers come out of a box.

    Rows go in a random order, since images are evaluated in the order of their data set, which may be that of
    their classes. A model that draws no random numbers gets no streams; for another one they are keyed with a
    secret, since the usual keys tell the image's place in its data set.
    """

    def __init__(self, box: Box, view: str, told: Mapping[str, Any], num_classes: int) -> None:
        super().__init__()
        self._box, self._view, self.num_classes = box, view, num_classes
        try:
            self.rejects, self.random = bool(told["rejects"]), bool(told["random"])
            self.passes = float(told["passes"])
        except (KeyError, TypeError, ValueError) as error:
            raise RefusedError(f"the defense does not say what it is: {error!r}") from error
        self._secret = secrets.token_bytes(16)
        self._order = np.random.default_rng(secrets.randbits(64))

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits; where a gradient is wanted, one that asks the box for it."""
        if torch.is_grad_enabled() and images.requires_grad:
            return cast("Tensor", _Asked.apply(images, self, rng))
        return self.answer(images, rng)

    def answer(self, images: Images, rng: Streams) -> Logits:
        """Logits without a gradient."""
        logits = self._ask("answer", {"images": images, "keys": self._keys(rng)}, "logits")
        expected = (len(images), self.num_classes + self.rejects)
        if logits.shape != expected or not logits.is_floating_point() or not bool(logits.isfinite().all()):
            raise RefusedError(f"the defense gave no finite logits of shape {expected}")
        return logits

    def gradient(self, images: Images, rng: Streams, upstream: Tensor) -> Images:
        """The gradient at the images, given the one at the logits."""
        tensors = {"images": images, "keys": self._keys(rng), "upstream": upstream}
        gradient = self._ask("gradient", tensors, "gradient")
        if gradient.shape != images.shape or gradient.dtype != images.dtype:
            raise RefusedError(f"the defense gave no gradient of shape {tuple(images.shape)} and type {images.dtype}")
        return gradient

    def _ask(self, what: str, tensors: Mapping[str, Tensor], wanted: str) -> Tensor:
        device = tensors["images"].device
        order = torch.from_numpy(self._order.permutation(len(tensors["images"]))).to(device)
        shuffled = {name: one[order] for name, one in tensors.items()}
        _, found = self._box.ask({"do": what, "view": self._view}, shuffled)
        if wanted not in found or len(found[wanted]) != len(order):
            raise RefusedError(f"the defense gave no {wanted} for {len(order)} images")
        return found[wanted].to(device)[order.argsort()]

    def _keys(self, rng: Streams) -> Tensor:
        if not self.random:
            return torch.zeros(len(rng), dtype=torch.int64, device=rng.device)
        used = rng._used.to_bytes(8, "little")
        hashed = [
            hashlib.blake2b(key.to_bytes(8, "little", signed=True) + used, key=self._secret, digest_size=8).digest()
            for key in rng._keys.tolist()
        ]
        keys = [int.from_bytes(one, "little", signed=True) for one in hashed]
        return torch.tensor(keys, dtype=torch.int64, device=rng.device)


class _Asked(torch.autograd.Function):
    """Logits out of a box, with a gradient that is asked for when it is wanted."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, remote: Remote, rng: Streams) -> Tensor:
        ctx.save_for_backward(images)
        ctx.remote, ctx.rng = remote, rng
        return remote.answer(images.detach(), rng)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (images,) = ctx.saved_tensors
        return ctx.remote.gradient(images, ctx.rng, upstream), None, None


@dataclass(frozen=True)
class RemoteDefense(Defense):
    """A defense in two boxes: one is judged, the other one serves attackers.

    Attributes:
        text: as a cell names it.
        code: the checksum of its code and of what it learned.
        run: a word for this run; nothing made through it is taken from a cache of another one.
        judged, attacked: the boxes.
        about: what `judged` says of it, and of its models.
        classes: how many there are.
    """

    text: str
    code: str
    run: str
    judged: Box = field(repr=False, compare=False)
    attacked: Box = field(repr=False, compare=False)
    about: Mapping[str, Any] = field(repr=False, compare=False)
    classes: int = field(repr=False, compare=False)

    title: ClassVar[str] = "remote"
    kind = "none"

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The defended model that is judged."""
        return Remote(self.judged, "", self.about["views"][""], self.classes)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The views of its attackers, out of the other box: gradients there tell labels."""
        views = self.about["views"].items()
        return {name[5:]: Remote(self.attacked, name, told, self.classes) for name, told in views if name}


@dataclass(frozen=True)
class RemoteCertifiedDefense(RemoteDefense, CertifiedDefense):
    """As RemoteDefense, with proofs."""

    def certify(self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget) -> Tensor:
        """Which right answers are proven to stand: the box proves its own answers, and these are then compared."""
        defended = self.protect(model, learned)
        told = answers(defended, images, Streams.of(0, torch.arange(len(images)))).argmax(-1)
        tensors = {"images": images, "answers": told.clamp(max=self.classes - 1)}
        limits = {"do": "certify", "budget": type(budget).__name__, "limits": asdict(budget)}  # type: ignore[call-overload]  # all budgets are dataclasses
        sure = self.judged.ask(limits, tensors)[1].get("sure")
        if sure is None or sure.dtype != torch.bool or sure.shape != told.shape:
            raise RefusedError(f"the defense gave no verdict for each of {len(images)} images")
        return sure & (told == labels)


def remote_defense(
    judged: Box, attacked: Box, *, text: str, code: str, model: str, shape: tuple[int, int, int], classes: int,
    learned: Artifact,
) -> RemoteDefense:  # fmt: skip
    """Has both boxes make the defense.

    Args:
        judged, attacked: two boxes with the same code.
        text, model: of the defense and of the bare model.
        code: a checksum for the caches.
        shape: of an image, (c, h, w).
        classes: how many there are.
        learned: what the defense learned.
    """
    request = {"do": "protect", "defense": text, "model": model, "shape": list(shape), "classes": classes}
    about, _ = [box.ask(request, learned)[0] for box in (judged, attacked)]
    try:
        kind = RemoteCertifiedDefense if about["certifies"] else RemoteDefense
        if "" not in about["views"] or len(about["views"]) < 2:
            raise RefusedError("the defense has no model, or no view for an attacker")
    except (KeyError, TypeError) as error:
        raise RefusedError(f"the defense does not say what it is: {error!r}") from error
    return kind(text, code, secrets.token_hex(8), judged, attacked, about, classes)
