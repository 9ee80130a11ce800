"""defense-bench: attacks against defenses of image classifiers, with numbers that can be checked."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.api.defend import defend_model as defend
    from bench.api.evaluate import attack_images as attack
    from bench.api.evaluate import evaluate_model as evaluate
    from bench.report.frame import load_results

    __version__: str

__all__ = ["__version__", "attack", "defend", "evaluate", "load_results"]

_ADDRESSES = {
    "attack": ("bench.api.evaluate", "attack_images"),
    "defend": ("bench.api.defend", "defend_model"),
    "evaluate": ("bench.api.evaluate", "evaluate_model"),
    "load_results": ("bench.report.frame", "load_results"),
}


def __getattr__(name: str) -> object:
    """Looks up what takes time only when it is asked for, so that `bench --help` stays quick."""
    if name in _ADDRESSES:
        module, attribute = _ADDRESSES[name]
        return getattr(import_module(module), attribute)
    if name == "__version__":
        from importlib.metadata import version

        return version("defense-bench")
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
