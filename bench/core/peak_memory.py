"""The peak memory of a piece of work."""

from __future__ import annotations

import math
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Measures from the moment it is made.

    On a GPU it counts all tensors there; on a CPU the memory that the process takes beyond what it took at the
    beginning, which only Linux can tell.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._before = _resident("VmRSS", reset=True)

    @property
    def mib(self) -> float:
        """The peak so far in MiB; NaN if the system cannot tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        return max(_resident("VmHWM") - self._before, 0.0)  # in this order NaN stays NaN


def resident_mib() -> float:
    """The memory that this process takes now; NaN if the system cannot tell."""
    return _resident("VmRSS")


def _resident(name: str, reset: bool = False) -> float:
    """A line of Linux's status of this process, in MiB; `reset` forgets the peak so far."""
    try:
        if reset:
            _RESET.write_text("5")
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(lines[name].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return math.nan
