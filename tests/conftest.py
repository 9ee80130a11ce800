"""Shared by all tests: types and shapes are checked at run time, and the cache is a temporary folder."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

_checking = ModuleType("checking")
_checking.checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]  # made here
sys.modules["checking"] = _checking
_WITH_TENSORS = "core contracts memory engine data models attacks defenses"
install_import_hook([f"bench.{name}" for name in _WITH_TENSORS.split()], "checking.checked")

torch.set_num_threads(1)  # test processes run side by side
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's &, also by what tests start

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of this test run alone."""
    before = os.environ.get("BENCH_CACHE")
    os.environ["BENCH_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["BENCH_CACHE"]
    else:
        os.environ["BENCH_CACHE"] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """A folder with real images and weights that are not part of the project; tests that need it skip without."""
    folder = Path(os.environ.get("BENCH_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("needs real images and weights: set BENCH_SHARED to their folder")
    return folder
