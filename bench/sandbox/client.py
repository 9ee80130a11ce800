"""The outer side: a defense and its models that look like any other, and ask a process behind walls for each number."""

from __future__ import annotations

import copy
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, cast

import numpy as np
import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
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
from bench.core.text import plain
from bench.errors import RefusedError
from bench.plugins.specs import Spec
from bench.records.schema import PluginRecord
from bench.sandbox.boxes import ATTACKERS, Boxes
from bench.sandbox.process import Limits

MOST = 10_000
"""Characters of everything that a defense says of itself."""


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class ViewTraits:
    """What a view of the defended model says of itself; as `Classifier`'s attributes."""

    rejects: bool
    non_finite_rejects: bool
    random: bool
    passes: Annotated[float, Field(ge=0, allow_inf_nan=False)]


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class About:
    """What a defense says of itself.

    Attributes:
        defense: as in its records.
        certifies: whether it is a certified defense.
        views: its attackers' views by name; "" is the defended model itself.
    """

    defense: PluginRecord
    certifies: bool
    views: dict[str, ViewTraits]


class Remote(Classifier):
    """A classifier whose answers come from a process behind walls.

    Rows go in a random order, since images are evaluated in the order of their data set, which may be that of
    their classes. A model that draws no random numbers gets no streams; for another one they are keyed with a
    secret, since the usual keys give away the image's place in its data set.
    """

    def __init__(self, boxes: Boxes, view: str, traits: ViewTraits, num_classes: int) -> None:
        super().__init__()
        self._boxes, self._view, self.num_classes = boxes, view, num_classes
        self.rejects, self.non_finite_rejects = traits.rejects, traits.non_finite_rejects
        self.random, self.passes = traits.random, traits.passes
        self._secret = secrets.token_bytes(16)
        self._order = np.random.default_rng(secrets.randbits(64))
        self._asker: object = ATTACKERS
        self._answered: set[int] | None = None

    def elsewhere(self) -> Remote:
        """The same model in a process of its own."""
        other = copy.copy(self)
        other._asker = object()
        return other

    def unused(self) -> Remote:
        """The same model for a judge: no process of it is asked twice about an image of the data set."""
        other = self.elsewhere()
        other._answered = set()
        return other

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits; where a gradient is wanted, with one that is asked for."""
        if torch.is_grad_enabled() and images.requires_grad:
            return cast("Tensor", _WithGradient.apply(images, self, rng))
        return self.answer(images, rng)

    def answer(self, images: Images, rng: Streams) -> Logits:
        """Logits without a gradient."""
        if self._answered is not None:
            if not self._answered.isdisjoint(rng._keys.tolist()):
                self._asker, self._answered = object(), set()
            self._answered |= set(rng._keys.tolist())
        logits = self._ask("answer", {"images": images, "keys": self._keys(rng)}, "logits")
        expected = (len(images), self.num_classes + self.rejects)
        if logits.shape != expected or not logits.is_floating_point():
            raise RefusedError(f"the defense gave no logits of shape {expected}, but {_words(logits)}")
        return logits

    def gradient(self, images: Images, rng: Streams, upstream: Tensor) -> Images:
        """The gradient at the images, given the one at the logits."""
        tensors = {"images": images, "keys": self._keys(rng), "upstream": upstream}
        gradient = self._ask("gradient", tensors, "gradient")
        if gradient.shape != images.shape or gradient.dtype != images.dtype:
            raise RefusedError(f"the defense gave no gradient like {_words(images)}, but {_words(gradient)}")
        return gradient

    def _ask(self, what: str, tensors: Mapping[str, Tensor], wanted: str) -> Tensor:
        device = tensors["images"].device
        order = torch.from_numpy(self._order.permutation(len(tensors["images"]))).to(device)
        shuffled = {name: tensor[order] for name, tensor in tensors.items()}
        _, numbers = self._boxes.ask(self._asker, {"do": what, "view": self._view}, shuffled)
        if wanted not in numbers or numbers[wanted].shape[:1] != order.shape:
            raise RefusedError(f"the defense gave no {wanted} for each of {len(order)} images")
        return numbers[wanted].to(device)[order.argsort()]

    def _keys(self, rng: Streams) -> Tensor:
        if not self.random:
            return torch.zeros(len(rng), dtype=torch.int64, device=rng.device)
        used = rng._used.to_bytes(8, "little")
        hashed = [
            hashlib.blake2b(key.to_bytes(8, "little", signed=True) + used, key=self._secret, digest_size=8).digest()
            for key in rng._keys.tolist()
        ]
        keys = [int.from_bytes(digest, "little", signed=True) for digest in hashed]
        return torch.tensor(keys, dtype=torch.int64, device=rng.device)


def _words(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {tuple(tensor.shape)}"


class _WithGradient(torch.autograd.Function):
    """Logits of a remote model, with a gradient that is asked for when it is wanted."""

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
    """A defense whose code runs behind walls.

    Attributes:
        text: as a cell names it.
        code: the checksum of its code and of what it learned.
        run: a word for this run; nothing made through it is taken from a cache of another one.
        boxes: its processes.
        about: what it says of itself.
        classes: how many there are.
    """

    text: str
    code: str
    run: str
    boxes: Boxes = field(repr=False, compare=False)
    about: About = field(repr=False, compare=False)
    classes: int = field(repr=False, compare=False)

    title: ClassVar[str] = "remote"
    kind = "none"

    def protect(self, model: Classifier, learned: Artifact) -> Remote:
        """The defended model as attackers use it."""
        return Remote(self.boxes, "", self.about.views[""], self.classes)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The views of its attackers."""
        views = self.about.views.items()
        return {name[5:]: Remote(self.boxes, name, traits, self.classes) for name, traits in views if name}


@dataclass(frozen=True)
class RemoteCertifiedDefense(RemoteDefense, CertifiedDefense):
    """As RemoteDefense, with proofs."""

    def certify(self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget) -> Tensor:
        """Which correct answers are proven to stand: it proves its own answers, which are then compared."""
        defended = self.protect(model, learned).unused()
        classes = answers(defended, images, Streams.of(0, torch.arange(len(images)))).argmax(-1)
        tensors = {"images": images, "answers": classes.clamp(max=self.classes - 1)}
        limits = {"do": "certify", "budget": type(budget).__name__, "limits": asdict(budget)}  # type: ignore[call-overload]  # all budgets are dataclasses
        proven = self.boxes.ask(object(), limits, tensors)[1].get("proven")
        if proven is None or proven.dtype != torch.bool or proven.shape != classes.shape:
            raise RefusedError(f"the defense gave no verdict for each of {len(images)} images")
        return proven & (classes == labels)


def remote_defense(
    code: Mapping[str, bytes], limits: Limits, *, text: str, checksum: str, model: str, shape: tuple[int, int, int],
    classes: int, learned: Artifact,
) -> RemoteDefense:  # fmt: skip
    """Makes a defense behind walls; its `boxes` must be closed.

    Args:
        code, limits: as for `Box`.
        text, model: of the defense and of the bare model.
        checksum: of the code and of what was learned, for the caches.
        shape: of an image, (c, h, w).
        classes: how many there are.
        learned: what the defense learned.

    Raises:
        RefusedError: it cannot be loaded, or does what it must not.
        IsolationError: this machine cannot raise the walls.
    """
    make = {"do": "protect", "defense": text, "model": model, "shape": list(shape), "classes": classes}
    boxes = Boxes(code, limits, make, learned)
    try:
        about = _checked(boxes.about, Spec.parse(text).name)
    except BaseException:
        boxes.close()
        raise
    kind = RemoteCertifiedDefense if about.certifies else RemoteDefense
    return kind(text, checksum, secrets.token_hex(8), boxes, about, classes)


def _checked(answer: dict[str, Any], name: str) -> About:
    """What a defense of this name says of itself, if readers may see it; raises RefusedError."""
    try:
        about: About = TypeAdapter(About).validate_python(answer)
        size, texts = len(json.dumps(answer, allow_nan=False)), list(_texts(answer))
    except (ValidationError, ValueError, RecursionError) as error:
        raise RefusedError(f"the defense does not say what it is: {plain(str(error))[:500]}") from error
    if "" not in about.views or len(about.views) < 2:
        raise RefusedError("the defense has no model, or no view for an attacker")
    if size > MOST or not all(text.isprintable() for text in texts):
        raise RefusedError(f"the defense describes itself in more than {MOST} characters, or in unprintable ones")
    if about.defense.name != name or about.defense.traits.get("kind") == "none":
        raise RefusedError(f"the defense says that it is {about.defense.name!r}, or that it defends nothing")
    return about


def _texts(tree: Any) -> Iterator[str]:
    """All texts in JSON."""
    if isinstance(tree, str):
        yield tree
    for inner in [*tree.items()] if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ():
        yield from _texts(inner)
