"""An honest bundle of a small benchmark, which tests of submissions forge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.benchmarks import named
from bench.engine.testbed import testbed_of
from bench.plugins import registry
from bench.submit.submit import submit

from .forging import PLUGIN, compute_here

TINY = """
dataset = "photos"
model = "photos-cnn"
attack = "fgsm"
tier = "both"
seed = 0
effort = "quick"
images = 8
[benchmark]
title = "tiny"
threat = "L∞"
counts = "accuracy"
data = "photos"
"""


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_from_files", {})


@pytest.fixture(scope="session", autouse=True)
def _tiny_benchmark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A benchmark of two cells beside those of the package."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for path in named._FOLDER.glob("*.toml"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "tiny.toml").write_text(TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(named, "_FOLDER", folder)
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory, _tiny_benchmark: None) -> Path:
    """An honest bundle of the example package."""
    out = tmp_path_factory.mktemp("honest") / "acme-blur.zip"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_from_files", {})
        assert submit(PLUGIN, out, benchmark="tiny", compute=compute_here)
    testbed_of.cache_clear()
    return out
