"""The state of the process that plugins may change by accident: threads, global random numbers, modes of torch."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

_PYTHON_RANDOM = "Python's global random numbers"
"""These are put back without a word: checkers of types draw from them at every call."""


_SET_BY_LIBRARIES = ("KMP_", "TORCHINDUCTOR_", "LD_LIBRARY_PATH", "QT_QPA_")


class ProcessState:
    """The state at one moment."""

    def __init__(self) -> None:
        self._values = {name: read() for name, (read, _) in _PARTS.items()}

    def restore(self) -> list[str]:
        """Puts everything back, and names what had changed."""
        changed = []
        for name, (read, write) in _PARTS.items():
            if not _same(read(), self._values[name]):
                write(self._values[name])
                changed += [name] if name != _PYTHON_RANDOM else []
        return changed


def _same(value: Any, other: Any) -> bool:
    if isinstance(value, Tensor):
        return torch.equal(value, other)
    if isinstance(value, list):
        return len(value) == len(other) and all(map(_same, value, other))
    return repr(value) == repr(other) if isinstance(value, tuple) else value == other


def _numpy_state() -> list[Any]:
    state: Any = np.random.get_state()  # noqa: NPY002  # the global generator is what this is about
    return [value.tolist() if isinstance(value, np.ndarray) else value for value in state]


def _set_numpy_state(state: list[Any]) -> None:
    np.random.set_state(tuple(state))  # noqa: NPY002


def _cuda_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]  # torch


def _environment() -> dict[str, str]:
    """Without what libraries such as OpenCV and torch set for themselves when they are imported."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SET_BY_LIBRARIES)}


def _set_environment(variables: dict[str, str]) -> None:
    for name in _environment().keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)


def _set_device(device: torch.device) -> None:
    torch.set_default_device(None if device.type == "cpu" else device)


def _set_handlers(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}


_PARTS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "torch's default type": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, _set_device),
    "the gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the precision of matrix products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "the choice of deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "torch's global random numbers": (torch.get_rng_state, torch.set_rng_state),
    "torch's global random numbers on the GPU": (_cuda_states, torch.cuda.set_rng_state_all),
    "NumPy's global random numbers": (_numpy_state, _set_numpy_state),
    _PYTHON_RANDOM: (random.getstate, random.setstate),
    "how NumPy treats overflow": (np.geterr, lambda state: np.seterr(**state)),
    "the environment": (_environment, _set_environment),
    "the working directory": (os.getcwd, os.chdir),
    "sys.path": (lambda: list(sys.path), lambda path: sys.path.__setitem__(slice(None), path)),
    "signal handlers": (_handlers, _set_handlers),
}
"""Name -> how a part of the state of the process is read, and set."""
