"""A bundle's defense at work on a scene, behind walls, in the shape in which the engine has its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.protect import Protected, fresh_answers
from bench.sandbox.box import Box, Limits
from bench.sandbox.remote import RemoteDefense, remote_defense
from bench.scene import Scene
from bench.submit.bundle import Bundle


@contextmanager
def behind_walls(bundle: Bundle, scene: Scene, limits: Limits | None = None) -> Iterator[RemoteDefense]:
    """The defense in two processes of its own, for as long as the `with` lasts.

    Raises:
        RefusedError: it cannot be loaded, or does what it must not.
        IsolationError: this machine cannot raise the walls.
    """
    limits = limits or Limits()
    with Box(bundle.code, limits) as judged, Box(bundle.code, limits) as attacked:
        yield remote_defense(
            judged,
            attacked,
            text=bundle.manifest.defense,
            code=bundle.checksum,
            model=scene.setting.model,
            shape=scene.image_shape,
            classes=scene.classes,
            learned=bundle.learned.get(scene.setting.seed, {}),
        )


def at_work(defense: RemoteDefense, scene: Scene) -> Protected:
    """The defense with its answers on the clean images of a scene."""
    model = defense.protect(scene.bare, {})
    return Protected(defense, {}, model, fresh_answers(model, scene.images, scene.streams.derive("judging clean")))
