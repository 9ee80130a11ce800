"""What the numbers of a cell and of a timing depend on: a record is stale if one of these is another one today."""

from __future__ import annotations

import os
import platform

import torch

from bench.contracts import Attack, Defense
from bench.engine.testbed import Testbed
from bench.plugins.fingerprints import plugin_fingerprints


def cell_fingerprints(attack: Attack, defense: Defense, testbed: Testbed) -> dict[str, str]:
    """Of images, model, attack, defense and the protocol of the engine."""
    return testbed.fingerprints | plugin_fingerprints("attack", attack) | plugin_fingerprints("defense", defense)


def latency_fingerprints(defense: Defense, testbed: Testbed) -> dict[str, str]:
    """Of weights, machine and defense."""
    inputs = {"weights": testbed.fingerprints["weights"], "machine": machine_name(testbed.setting.device)}
    return inputs | plugin_fingerprints("defense", defense)


def machine_name(device: str) -> str:
    """The kind of machine; times of two machines are never compared."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
