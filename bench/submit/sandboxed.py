"""A bundle's defense at work on a testbed, behind walls, in the shape in which the engine has its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.engine.testbed import Testbed
from bench.sandbox.client import RemoteDefense, remote_defense
from bench.sandbox.process import Box, Limits
from bench.submit.bundle import Bundle


@contextmanager
def behind_walls(bundle: Bundle, testbed: Testbed, limits: Limits | None = None) -> Iterator[RemoteDefense]:
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
            model=testbed.setting.model,
            shape=testbed.image_shape,
            classes=testbed.classes,
            learned=bundle.learned.get(testbed.setting.seed, {}),
        )
