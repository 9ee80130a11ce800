"""How much memory a piece of work takes at its peak."""

from __future__ import annotations

import math
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class PeakMemory:
    """Begins to watch when it is made.

    On a GPU it is what tensors take there in all; on a CPU what the process takes more than at the beginning, which
    only Linux tells.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._before = _resident("VmRSS", reset=True)

    @property
    def mib(self) -> float:
        """The peak so far in MiB; NaN where the system does not tell."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        return max(_resident("VmHWM") - self._before, 0.0)  # in this order NaN stays NaN


def _resident(name: str, reset: bool = False) -> float:
    """A line of Linux's status of this process in MiB; `reset` makes the peak begin anew."""
    try:
        if reset:
            _RESET.write_text("5")
        lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        return int(lines[name].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        return math.nan
