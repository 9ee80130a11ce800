"""What the numbers of a cell and of a timing depend on: a record is stale if one of these is another one today."""

from __future__ import annotations

import os
import platform

import torch

from bench.contracts import Attack, Defense, UniversalAttack
from bench.engine.testbed import Testbed
from bench.plugins.fingerprints import plugin_fingerprints
from bench.records.schema import Tier


def cell_fingerprints(attack: Attack, defense: Defense, testbed: Testbed, tier: Tier) -> dict[str, str]:
    """Of images, model, attack, defense and the protocol of the engine."""
    return testbed.fingerprints | attack_fingerprints(attack, tier) | plugin_fingerprints("defense", defense)


def attack_fingerprints(attack: Attack, tier: Tier) -> dict[str, str]:
    """Of an attack on a defended model, and of how its results through several views become one.

    In older records of universal attacks each image had what was learned through the view that hurt it most.
    """
    one_for_all = tier == "adaptive" and isinstance(attack, UniversalAttack)
    return plugin_fingerprints("attack", attack) | ({"artifact": "one for all"} if one_for_all else {})


def latency_fingerprints(defense: Defense, testbed: Testbed, device: str | None) -> dict[str, str]:
    """Of weights, defense and the machine of a device; None leaves the machine out."""
    machine = {} if device is None else {"machine": machine_name(device)}
    return {"weights": testbed.fingerprints["weights"]} | machine | plugin_fingerprints("defense", defense)


def machine_name(device: str) -> str:
    """The kind of machine; times of two machines are never compared."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device) if torch.cuda.is_available() else "a GPU of another machine"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"
