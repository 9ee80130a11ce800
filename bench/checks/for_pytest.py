"""The contract checks as tests of their own, in the manner of scikit-learn's `parametrize_with_checks`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.checks.case import Case
from bench.checks.run import checks_of, plugins_named

if TYPE_CHECKING:
    import pytest


def parametrize(plugin: str | Path) -> pytest.MarkDecorator:
    """Turns a test with the argument `check` into one test for each contract check of a plugin.

    ```python
    @bench.checks.parametrize("blur.py")
    def test_it_keeps_its_contract(check):
        check()
    ```

    Args:
        plugin: its text, such as `jpeg:quality=30`, or the file that defines it.

    Raises:
        InputError: there is no such plugin.
    """
    import pytest

    cases = [(text, Case(made)) for text, made in plugins_named(str(plugin))]
    checks = [
        pytest.param(partial(check, case), id=f"{text}-{check.__name__}")
        for text, case in cases
        for check in checks_of(case.plugin)
    ]
    return pytest.mark.parametrize("check", checks)
