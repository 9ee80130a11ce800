"""defense-bench: attacks against defenses of image classifiers, with numbers that can be checked."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.records.frame import load_results as load_results

    __version__: str


def __getattr__(name: str) -> object:
    """Looks up what takes time only when it is asked for, so that `bench --help` stays quick."""
    if name == "load_results":
        from bench.records.frame import load_results

        return load_results
    if name == "__version__":
        from importlib.metadata import version

        return version("defense-bench")
    raise AttributeError(f"module 'bench' has no attribute {name!r}")
