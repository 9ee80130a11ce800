"""Whether a plugin changed what its neighbours use: images, weights, modules, and the state of the process."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts import Attack, Defense, Plugin
from bench.engine.process_state import ProcessState
from bench.engine.testbed import Testbed
from bench.plugins.registry import FILE_MODULE

_LIBRARIES = (
    "builtins", "math", "random", "time", "numpy", "numpy.random", "torch", "torch.autograd", "torch.fft",
    "torch.linalg", "torch.nn", "torch.nn.functional", "torch.nn.init",
)  # fmt: skip
_OUR_PLUGINS = ("bench.attacks.", "bench.defenses.")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_COMPILER = tuple(str(Path(torch.__file__).with_name(name)) for name in ("_compile.py", "_dynamo"))
_IMMUTABLE_TYPE = 1 << 8
"""The flag of classes whose attributes Python itself protects."""


class InterferenceError(RuntimeError):
    """A plugin changed something that other cells use, too."""


@contextmanager
def unchanged(
    testbed: Testbed | None = None,
    plugins: Iterable[Plugin] = (),
    defended: nn.Module | None = None,
    learned: Mapping[str, Tensor] | None = None,
) -> Iterator[None]:
    """Raises InterferenceError at the end if anything that cells share has changed.

    The process and its modules are put back as they were. Images and weights are not: after an InterferenceError
    the testbed has to be built anew.

    Args:
        testbed: its images, labels and bare model are watched.
        plugins: what is at work; it may count in attributes of its own classes.
        defended: a defended model that all attacks share; its averages and counters are its own.
        learned: what its defense learned.
    """
    before = _Surroundings(testbed, plugins, defended, learned)
    try:
        yield
    except BaseException as error:
        changes = before.restore()
        if changes and not isinstance(error, InterferenceError | KeyboardInterrupt):
            raise InterferenceError(f"{_in_words(changes)}; then {type(error).__name__}: {error}") from error
        raise
    if changes := before.restore():
        raise InterferenceError(_in_words(changes))


def _in_words(changes: list[str]) -> str:
    more = f" and {len(changes) - 4} more" if len(changes) > 4 else ""
    return f"a plugin changed what other cells use: {', '.join(changes[:4])}{more}"


class _Surroundings:
    """What cells share, as it was at one moment."""

    def __init__(
        self,
        testbed: Testbed | None,
        plugins: Iterable[Plugin],
        defended: nn.Module | None,
        learned: Mapping[str, Tensor] | None,
    ) -> None:
        self._own = {type(plugin).__module__ for plugin in plugins}
        self._shared = (testbed, defended, learned)
        self._content = _content(*self._shared)
        self._process = ProcessState()
        self._loaded = set(sys.modules)
        self._attributes = [(holder, dict(vars(holder)), _identities(holder)) for holder in _holders(testbed)]
        self._presets = {kind: repr(kind.presets) for kind in _plugin_classes()}

    def restore(self) -> list[str]:
        """Puts back what can be put back; names all that had changed."""
        changes = self._process.restore() + self._restore_modules()
        changes += [f"{kind.__name__}.presets" for kind, text in self._presets.items() if repr(kind.presets) != text]
        now = _content(*self._shared)
        return changes + [name for name, value in self._content.items() if now[name] != value]

    def _restore_modules(self) -> list[str]:
        changes = []
        for name in sys.modules.keys() - self._loaded:
            if name.startswith(_OUR_PLUGINS):  # a plugin imported another one, and may have changed it
                del sys.modules[name]
        for holder, attributes, identities in self._attributes:
            name = holder.__name__
            if isinstance(holder, ModuleType) and sys.modules.get(name) is not holder:
                reloaded = name.startswith(FILE_MODULE)  # the same file may be loaded twice
                changes += [] if reloaded else [name]
                sys.modules[name] = sys.modules[name] if reloaded else holder
            if _identities(holder) != identities:
                changes += [f"{name}.{attribute}" for attribute in _put_back(holder, attributes, self._own)]
        return changes


def _identities(holder: type | ModuleType) -> list[int]:
    """A fast way to see that no attribute was replaced."""
    return [*map(id, vars(holder).values())]


def _plugin_classes() -> list[type[Plugin]]:
    """All that are loaded, wherever they come from."""
    classes: list[type[Plugin]] = [Attack, Defense]
    for kind in classes:
        classes += [child for child in kind.__subclasses__() if child not in classes]
    return classes


def _holders(testbed: Testbed | None) -> list[type | ModuleType]:
    """The modules and classes that no plugin may change."""
    plugins = _plugin_classes()
    nets = [type(part) for part in testbed.bare.modules()] if testbed else []
    ours = [name for name in sys.modules if name.partition(".")[0] == "bench"]
    names = dict.fromkeys([*_LIBRARIES, *ours, *(kind.__module__ for kind in plugins)])
    modules = [module for name in names if isinstance(module := sys.modules.get(name), ModuleType)]
    classes = {
        value: None
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and not value.__flags__ & _IMMUTABLE_TYPE
        and value.__module__.partition(".")[0] == module.__name__.partition(".")[0]
    }
    return [*modules, *dict.fromkeys([*classes, *plugins, *nets])]


def _put_back(holder: type | ModuleType, before: Mapping[str, Any], own: set[str]) -> list[str]:
    """Sets the code and the constants of a module or class to what they were; the names of those that differed."""
    now, counts = vars(holder), isinstance(holder, type) and holder.__module__ in own
    changed = [
        name
        for name, value in before.items()
        if now.get(name) is not value
        and (_is_code(value) or (not counts and _is_constant(holder, name, value)))
        and not _is_by_torch(now.get(name))
    ]
    for name in changed:
        setattr(holder, name, before[name])
    added = [name for name in now if name not in before and callable(now[name])] if isinstance(holder, type) else []
    for name in added:
        delattr(holder, name)
    return changed + added


def _is_by_torch(value: object) -> bool:
    """Whether torch's compiler has put this into its modules: the first step of an optimiser wraps `manual_seed`."""
    code = getattr(value, "__code__", None)
    return code is not None and code.co_filename.startswith(_COMPILER)


def _is_code(value: object) -> bool:
    return callable(value) or isinstance(value, property | classmethod | staticmethod)


def _is_constant(holder: type | ModuleType, name: str, value: object) -> bool:
    named_so = isinstance(holder, type) or name.isupper()
    return named_so and not name.startswith("_") and isinstance(value, str | int | float | tuple)


def _content(
    testbed: Testbed | None, defended: nn.Module | None, learned: Mapping[str, Tensor] | None
) -> dict[str, Any]:
    """Checksums of the tensors that cells share, and how their models are built."""
    content: dict[str, Any] = {"what the defense learned": _checksum((learned or {}).values())}
    parts: set[nn.Module] = set()
    if testbed:
        nets = list(dict.fromkeys(part for network in testbed.networks for part in network.modules()))
        parts = set(nets)
        goal, data = testbed.goal, testbed.dataset
        content |= {
            "the clean images": _checksum([testbed.images]),
            "the labels": _checksum(
                [goal.labels, testbed.labels, testbed.indices, data.train.labels, data.test.labels]
            ),
            "the targets": _checksum([] if goal.targets is None else [goal.targets]),
            "the random streams": _checksum([testbed.streams._keys]),
            "the weights of the bare model": _checksum(
                weight for net in nets for weight in (*net.parameters(recurse=False), *net.buffers(recurse=False))
            ),
            "the layers of the bare model": [(_code_of(net), _settings_of(net)) for net in nets],
        }
    if defended:
        others = [part for part in defended.modules() if part not in parts]
        weights = [weight for part in others for weight in part.parameters(recurse=False)]
        content["the weights of the defended model"] = _checksum(weights)
        content["the layers of the defended model"] = [_code_of(part) for part in others]
    return content


def _checksum(tensors: Iterable[Tensor]) -> int:
    total = 0
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        flat = flat.as_strided(flat.shape, (1,))  # the stride of a single element may be 0
        total = zlib.crc32(flat.view(torch.uint8).numpy().data, total)
    return total


def _code_of(part: nn.Module) -> tuple[object, ...]:
    """What a layer computes with beside its weights."""
    hooks = [list(getattr(part, name).values()) for name in _HOOKS]
    return type(part), part.training, hooks, {name: value for name, value in vars(part).items() if callable(value)}


def _settings_of(part: nn.Module) -> dict[str, object]:
    simple: dict[str, object] = {
        name: value for name, value in vars(part).items() if isinstance(value, str | int | float | tuple)
    }
    return simple | {name: weight.requires_grad for name, weight in part.named_parameters(recurse=False)}
