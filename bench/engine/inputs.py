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
    return Fingerprints(testbed).of_cell(attack, defense, tier)


class Fingerprints:
    """The fingerprints of many cells of one testbed; the code of each plugin is read once."""

    def __init__(self, testbed: Testbed) -> None:
        self._testbed = testbed
        self._of_attacks: dict[tuple[int, Tier], dict[str, str]] = {}
        self._of_defenses: dict[int, dict[str, str]] = {}

    def of_cell(self, attack: Attack, defense: Defense, tier: Tier) -> dict[str, str]:
        """As `cell_fingerprints`; the plugins live as long as this does."""
        of_attack, of_defense = (id(attack), tier), id(defense)
        if of_attack not in self._of_attacks:
            self._of_attacks[of_attack] = attack_fingerprints(attack, tier)
        if of_defense not in self._of_defenses:
            self._of_defenses[of_defense] = plugin_fingerprints("defense", defense)
        return self._testbed.fingerprints | self._of_attacks[of_attack] | self._of_defenses[of_defense]


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
