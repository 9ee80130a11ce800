"""Contract checks of attacks and defenses, for `bench check` and for the tests of third parties."""

from __future__ import annotations

from bench.checks.for_pytest import parametrize
from bench.checks.run import check_plugin

__all__ = ["check_plugin", "parametrize"]
