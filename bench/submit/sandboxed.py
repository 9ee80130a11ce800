"""A bundle's defense at work on a testbed, behind walls, in the shape in which the engine has its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError
from safetensors.torch import load

from bench.engine.protect import Protected, fresh_answers
from bench.engine.testbed import Testbed
from bench.errors import RefusedError
from bench.sandbox.client import RemoteDefense, remote_defense
from bench.sandbox.process import Limits
from bench.submit.bundle import Bundle


@contextmanager
def behind_walls(bundle: Bundle, testbed: Testbed, limits: Limits | None = None) -> Iterator[RemoteDefense]:
    """The defense in processes of its own, for as long as the `with` lasts.

    Raises:
        RefusedError: it cannot be loaded, or does what it must not.
        IsolationError: this machine cannot raise the walls.
    """
    content = bundle.learned.get(testbed.setting.seed)
    try:
        learned = load(content) if content else {}
    except SafetensorError as error:
        raise RefusedError(f"what the defense learned cannot be read: {error}") from error
    defense = remote_defense(
        bundle.code,
        limits or Limits(),
        text=bundle.manifest.defense,
        checksum=bundle.checksum,
        model=testbed.setting.model,
        shape=testbed.image_shape,
        classes=testbed.classes,
        learned=learned,
    )
    with defense.boxes:
        yield defense


def protected_by(defense: RemoteDefense, testbed: Testbed) -> Protected:
    """The defense at work on a testbed; each judgement gets a process that knows nothing of the others."""
    model = defense.protect(testbed.bare, {})
    clean = fresh_answers(model.unused(), testbed.images, testbed.streams.derive("judging clean"))
    return Protected(defense, {}, model, clean, make_unused=model.unused)
