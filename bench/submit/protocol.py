"""The standard protocols: which cells a submission computes, fixed, named and versioned."""

from __future__ import annotations

import hashlib
from dataclasses import field
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
    """What is computed for a submission. A change of a published one is a new file with a new name.

    Attributes:
        name: also the file's.
        dataset, model, images, goal, effort: as for a cell; the model's weights come with the package.
        seeds, tiers, attacks: all of them are crossed.
        digest: of the file's content; set by `load`.
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
        return [self.cell(defense, attack, tier, seed)
                for seed in self.seeds for attack in self.attacks for tier in self.tiers]  # fmt: skip

    def cell(self, defense: str, attack: str, tier: Tier, seed: int) -> Cell:
        """One cell."""
        return Cell(
            self.dataset,
            self.model,
            canonical_text("attack", attack),
            defense,
            tier,
            self.goal,
            self.effort,
            self.images,
            seed,
        )

    def setting(self, seed: int) -> Setting:
        """What its cells of one seed share."""
        return Setting(self.dataset, self.model, self.images, self.goal, seed)


def protocol_names() -> list[str]:
    """The protocols that there are."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_protocol(name: str) -> Protocol:
    """The protocol of this name; raises InputError where there is none."""
    check_known(name, protocol_names(), "protocol")
    content = (_FOLDER / f"{name}.json").read_bytes()
    found = TypeAdapter(Protocol).validate_json(content)
    return Protocol(**(vars(found) | {"digest": hashlib.sha256(content).hexdigest()[:12]}))
