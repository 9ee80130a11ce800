"""An honest bundle of a small protocol, which tests of submissions forge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.engine.testbed import testbed_of
from bench.plugins import registry
from bench.submit import protocol
from bench.submit.submit import submit

from .forging import PLUGIN, compute_here

TINY = """{"name": "tiny", "dataset": "photos", "model": "photos-cnn", "images": 8, "goal": "untargeted",
 "effort": "quick", "seeds": [0], "tiers": ["oblivious", "adaptive"], "attacks": ["fgsm"]}"""


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_from_files", {})


@pytest.fixture(scope="session", autouse=True)
def _tiny_protocol(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A protocol of two cells beside those of the package."""
    folder = tmp_path_factory.mktemp("protocols")
    for path in protocol._FOLDER.glob("*.json"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "tiny.json").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "_FOLDER", folder)
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, _tiny_protocol: None) -> Path:
    """An honest bundle of the example package."""
    out = tmp_path_factory.mktemp("honest") / "acme-blur.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_from_files", {})
        assert submit(PLUGIN, out, protocol="tiny", compute=compute_here)
    testbed_of.cache_clear()
    return out
