"""Shared by all tests: types and shapes are checked at run time, and the cache is a temporary folder."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # tests run side by side; set before torch is imported, also for what they start

import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

_checking = ModuleType("checking")
_checking.checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # type: ignore[attr-defined]  # made here
sys.modules["checking"] = _checking
_WITH_TENSORS = """
    core contracts memory training augment weights_file plugins.chain data models records.metrics engine checks sandbox
    submit attacks defenses
"""
install_import_hook([f"bench.{name}" for name in _WITH_TENSORS.split()], "checking.checked")

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's &, also by what tests start

ROOT = Path(__file__).resolve().parent.parent
MAY_SKIP = ("set BENCH_SHARED", "tox -e torchattacks", "takes seconds at this size", "has no ")
"""Parts of the reasons for which a test may be skipped where BENCH_SKIP_NOTHING is set, as in .ci/run."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, Any]:
    """Where everything is installed, a test that is skipped for lack of something fails."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("BENCH_SKIP_NOTHING"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(part in reason for part in MAY_SKIP):
            report.outcome, report.longrepr = "failed", f"May not be skipped here. {reason}"
    return report


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
