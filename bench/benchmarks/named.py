"""The named benchmarks: fixed attacks, budgets, images and seeds, so that any two defenses can be compared."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path

from bench.benchmarks.experiment import Description, load_experiment
from bench.core.identity import without_hashes
from bench.errors import InputError
from bench.plugins.specs import check_known
from bench.records.schema import TIERS, Cell, Effort, Tier

_FOLDER = Path(__file__).parent

FIXED = ("attack", "tier", "targeted", "target", "effort", "images", "seed")
"""The options of `bench run` that a benchmark fixes. Others say where its data are, or how it is computed."""


@dataclass(frozen=True)
class Benchmark:
    """What is computed of a defense. A published benchmark never changes; a change is a new file of a new name.

    Attributes:
        name: also of the file.
        about: its title, threat model and data, in words.
        dataset, model: those of its file; a folder with such data, and another model, give a board of their own.
        attacks: spelled as in cells.
        tiers, seeds: every combination with the attacks is a cell.
        goal, effort, images: as for a cell.
        digest: of the file's content.
    """

    name: str
    about: Description
    dataset: str
    model: str
    attacks: tuple[str, ...]
    tiers: tuple[Tier, ...]
    seeds: tuple[int, ...]
    goal: str
    effort: Effort
    images: int
    digest: str

    def cells(self, dataset: str, model: str, defense: str) -> list[Cell]:
        """All cells of a defense, with these texts of records."""
        return [
            Cell(dataset, model, attack, defense, tier, self.goal, self.effort, self.images, seed)
            for seed, attack, tier in product(self.seeds, self.attacks, self.tiers)
        ]

    def has_data(self, dataset: str) -> bool:
        """Whether it is about a data set of this name in records."""
        return any(fnmatchcase(without_hashes(dataset), pattern) for pattern in self.about.data)

    def has(self, cell: Cell) -> bool:
        """Whether a cell is one of its own, on any of its data, with any model and any defense."""
        return self.has_data(cell.dataset) and cell in self.cells(cell.dataset, cell.model, cell.defense)


def benchmark_path(name: str) -> Path:
    """The file of a benchmark; raises InputError if there is none of this name."""
    check_known(name, benchmark_names(), "benchmark")
    return _FOLDER / f"{name}.toml"


def benchmark_names() -> list[str]:
    """The names of all benchmarks."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of this name; raises InputError if there is none, or its file lacks something."""
    path = benchmark_path(name)
    given = load_experiment(path).experiment
    if not (given.benchmark and given.dataset and given.model and given.attack and given.tier and given.seed) or (
        given.effort is None or not isinstance(given.images, int)
    ):
        raise InputError(f"Expected dataset, model, attack, tier, seed, effort, images and [benchmark] in {path}.")
    aim = f"targeted:{given.target}" if given.target else "targeted" if given.targeted else "untargeted"
    return Benchmark(
        name=name,
        about=given.benchmark,
        dataset=given.dataset[0],
        model=given.model[0],
        attacks=given.attack,
        tiers=TIERS if given.tier == "both" else (given.tier,),
        seeds=given.seed,
        goal=aim,
        effort=given.effort,
        images=given.images,
        digest=hashlib.sha256(path.read_bytes()).hexdigest()[:12],
    )
