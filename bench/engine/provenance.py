"""What a record says of an attack, a defense, the queries and the machine."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from bench.contracts import Attack, Defense, Transform, UniversalAttack
from bench.core.identity import without_hashes
from bench.engine.craft import Crafted
from bench.engine.inputs import cell_fingerprints
from bench.engine.protect import Protected
from bench.engine.testbed import Testbed
from bench.plugins.specs import Spec
from bench.records.schema import Cell, Facts, Outcome, PluginRecord
from bench.records.warnings import warnings_of


def make_outcome(
    cell: Cell,
    testbed: Testbed,
    attack: Attack,
    protected: Protected,
    attacked: Crafted,
    facts: Facts,
    draws: int,
    seconds: dict[str, float],
) -> Outcome:
    """The record of a cell that went well."""
    return Outcome(
        cell=cell,
        status="ok",
        classes=testbed.classes,
        attack=describe_attack(cell.attack, attack),
        defense=describe_defense(cell.defense, protected),
        facts=facts,
        queries=count_queries(attacked),
        warnings=warnings_of(facts, testbed.classes) + in_bfloat16(testbed),
        fingerprints=cell_fingerprints(attack, protected.defense, testbed, cell.tier),
        provenance=environment(testbed, draws if protected.model.random else 1),
        training={name: round(value, 3) for name, value in protected.cost.items()},
        seconds={name: round(value, 3) for name, value in seconds.items()},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def describe_attack(text: str, attack: Attack) -> PluginRecord:
    """What tables need to know of an attack."""
    traits = {
        "threat_model": attack.budget.threat_model,
        "budget": str(attack.budget),
        "access": attack.access,
        "accesses": sorted({attack.access, *(part.access for part in attack.components() if isinstance(part, Attack))}),
        "family": attack.family,
        "steps": attack.steps,
        "universal": isinstance(attack, UniversalAttack),
    }
    return _plugin(text, attack, traits)


def describe_defense(text: str, protected: Protected) -> PluginRecord:
    """What tables need to know of a defense."""
    defense, defended = protected.defense, protected.model
    traits = {
        "kind": defense.kind,
        "views": list(defense.views) if isinstance(defense, Transform) else [],
        "trained": defense.learns,
        "random": defended.random,
        "rejects": defended.rejects,
        "passes": defended.passes,
        "tuned_on": list(defense.tuned_on),
        "ranked": defense.ranked,
    }
    return _plugin(text, defense, traits)


def _plugin(text: str, plugin: Attack | Defense, traits: Mapping[str, object]) -> PluginRecord:
    parts = Spec.parse_chain(text)
    parameters = {key: value.name if isinstance(value, Path) else value for key, value in plugin.parameters.items()}
    files = {key: value for key, value in parts[0].parameters if len(parts) == 1 and without_hashes(value) != value}
    return PluginRecord(
        name="+".join(part.name for part in parts),
        title=plugin.title,
        paper=plugin.paper,
        parameters=parameters | files,
        traits=dict(traits),
        note=plugin.note,
    )


def count_queries(attacked: Crafted) -> dict[str, float]:
    """Mean and largest number of queries over the attacked images."""
    queries = {}
    for name, counts in (("forwards", attacked.forwards), ("backwards", attacked.backwards)):
        of_attacked = counts[attacked.eligible].double()
        queries[f"{name}_mean"] = round(float(of_attacked.mean()), 3) if len(of_attacked) else 0.0
        queries[f"{name}_max"] = float(of_attacked.max()) if len(of_attacked) else 0.0
    return queries


def in_bfloat16(testbed: Testbed) -> list[str]:
    """A warning where images were crafted in bfloat16: a success that float32 does not confirm is lost."""
    return ["crafted in bfloat16: float32 may find more"] if testbed.setting.precision == "bfloat16" else []


def network_form(testbed: Testbed) -> str:
    """In which form and precision attacks ask the bare model."""
    form = "as it is" if testbed.prepared is testbed.bare else "batch norms folded, channels last"
    return f"{testbed.setting.precision}, {form}"


def environment(testbed: Testbed, draws: int) -> dict[str, str]:
    """Versions, device and network; nothing that names a person or a folder."""
    device = "cpu" if testbed.device.type == "cpu" else torch.cuda.get_device_name(testbed.device)
    packages = ("torch", "torchvision", "numpy", "opencv-python-headless", "pillow")
    return {
        "defense-bench": version("defense-bench"),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "device": f"{device} {platform.machine()}",
        "draws": str(draws),
        "network": network_form(testbed),
    }
