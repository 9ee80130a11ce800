"""defense-bench: attacks crossed with defenses of image classifiers, with numbers that can be checked."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.records.frame import load_results as load_results

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Loads what needs pandas only where it is asked for, so that `bench --help` stays quick."""
    if name == "load_results":
        from bench.records.frame import load_results

        return load_results
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
