"""The standard protocols: which cells a submission computes, fixed, named and versioned."""

from __future__ import annotations

import hashlib
from dataclasses import field, replace
from itertools import product
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass as checked

from bench.engine.setting import Setting
from bench.plugins.registry import canonical_text
from bench.plugins.specs import check_known
from bench.records.schema import Cell, Effort, Tier

_FOLDER = Path(__file__).parent.parent / "protocols"


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Protocol:
    """What is computed for a submission. A published protocol never changes; a change is a new file of a new name.

    Attributes:
        name: also of the file.
        dataset, model, images, goal, effort: as for a cell; the model's weights come with the package.
        seeds, tiers, attacks: every combination is a cell.
        digest: of the file's content; set by `load_protocol`.
    """

    name: str
    dataset: str
    model: str
    images: int
    goal: str
    effort: Effort
    seeds: tuple[int, ...]
    tiers: tuple[Tier, ...]
    attacks: tuple[str, ...]
    digest: str = field(default="", compare=False)

    def cells(self, defense: str) -> list[Cell]:
        """All cells of a defense."""
        crossed = product(self.seeds, self.attacks, self.tiers)
        return [
            Cell(self.dataset, self.model, canonical_text("attack", attack), defense, tier, self.goal, self.effort,
                 self.images, seed)
            for seed, attack, tier in crossed
        ]  # fmt: skip

    def setting(self, seed: int) -> Setting:
        """The setting of its cells of one seed."""
        return Setting(self.dataset, self.model, self.images, self.goal, seed)


def protocol_names() -> list[str]:
    """The names of all protocols."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_protocol(name: str) -> Protocol:
    """The protocol of this name; raises InputError if there is none."""
    check_known(name, protocol_names(), "protocol")
    content = (_FOLDER / f"{name}.json").read_bytes()
    protocol = TypeAdapter(Protocol).validate_json(content)
    return replace(protocol, digest=hashlib.sha256(content).hexdigest()[:12])
