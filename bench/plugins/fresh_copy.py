"""A copy of a defense that shares no memory with the first."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import fields, replace
from types import ModuleType
from typing import cast

from bench.contracts import Defense
from bench.plugins.chain import Chain
from bench.plugins.source_code import modules_of

_OUR_PLUGINS = ("bench.attacks.", "bench.defenses.")


def fresh_copy(defense: Defense) -> Defense:
    """The same defense, of a class whose modules are executed once more.

    What the first one keeps in a module or a class, such as images that it was shown, the copy does not have. Where
    the modules cannot be executed twice, the copy is of the same class.
    """
    if isinstance(defense, Chain):
        return replace(defense, parts=tuple(fresh_copy(part) for part in defense.parts))
    kind = type(defense)
    modules = _execute_again(kind.__module__)
    fresh = getattr(modules.get(kind.__module__), kind.__qualname__, kind)
    values = {field.name: getattr(defense, field.name) for field in fields(defense) if field.init}  # type: ignore[arg-type]  # a dataclass by contract
    return cast("Defense", fresh(**values))


def _execute_again(module_name: str) -> dict[str, ModuleType]:
    """Second copies of a plugin's module and of what it imports from its author; none where one of them fails.

    `sys.modules` keeps the first ones. The engine itself is not executed again, nor are libraries.
    """
    names = [
        name for name in modules_of([module_name]) if not name.startswith("bench.") or name.startswith(_OUR_PLUGINS)
    ]
    loaded = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    try:
        for name, module in loaded.items():
            spec = module.__spec__
            if name not in sys.modules and spec and spec.loader:  # else another of them has imported it
                sys.modules[name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(sys.modules[name])
        return {name: sys.modules[name] for name in loaded if name in sys.modules}
    except Exception:  # the module of a third party may fail in any way
        return {}
    finally:
        sys.modules.update(loaded)
        for name, module in loaded.items():
            parent, _, child = name.rpartition(".")
            if parent in sys.modules:
                setattr(sys.modules[parent], child, module)
