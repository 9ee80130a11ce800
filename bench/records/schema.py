"""The cell of the matrix, and the record of what came out of it: the facts of each image, and where they come from."""

from __future__ import annotations

import hashlib
import re
import shlex
from dataclasses import asdict, field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bench.errors import InputError

SCHEMA = 1
Tier = Literal["oblivious", "adaptive"]
Effort = Literal["quick", "standard", "paper"]
Status = Literal["ok", "error", "timeout", "out-of-memory", "not-applicable"]
TIERS: tuple[Tier, ...] = ("oblivious", "adaptive")


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Cell:
    """One cell of the matrix. Prints as `key=value` words that `Cell.parse` reads back.

    Attributes:
        dataset, model, attack, defense: their texts; folders and files by their last name only.
        tier: `oblivious` (crafted on the bare model) or `adaptive` (through the defense, too).
        goal: `untargeted`, or `targeted` (a random other class for each image), or `targeted:K` (class K).
        effort: which preset of the attacks.
        images: how many images, 0 for all.
        seed: of every random number.
    """

    dataset: str
    model: str
    attack: str
    defense: str
    tier: Tier
    goal: str = "untargeted"
    effort: Effort = "standard"
    images: int = 0
    seed: int = 0

    def __str__(self) -> str:
        return " ".join(f"{key}={shlex.quote(str(value))}" for key, value in asdict(self).items())

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Reads the printed form back; raises InputError where it is none."""
        pairs = dict(word.partition("=")[::2] for word in shlex.split(text))
        try:
            return TypeAdapter(cls).validate_python(pairs)
        except ValidationError as error:
            known = ", ".join(one.name for one in fields(cls))
            raise InputError(f"Expected key=value words with the keys {known}, but got {text!r}.") from error

    @property
    def slug(self) -> str:
        """A file name without an ending: readable, safe on any system, and unique through a hash."""
        words = "-".join((self.attack, self.defense, self.tier))
        safe = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-")[:60]
        return f"{safe}-{hashlib.sha256(str(self).encode()).hexdigest()[:10]}"

    @property
    def group(self) -> tuple[str, str]:
        """Names of the two folders that hold the record: for the data set and for the model."""
        safe = [re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:60] or "x" for text in (self.dataset, self.model)]
        return safe[0], safe[1]


def spell(values: Any) -> Any:
    """A list of nothing but 0, 1 and None as one character each (`10-1`), as records hold it; others as they are."""
    if isinstance(values, list) and values and all(value in (0, 1, None) for value in values):
        return "".join("-" if value is None else str(int(value)) for value in values)
    return values


def _spelled_out(text: Any) -> Any:
    """The inverse of `spell`; raises ValueError for other characters."""
    if not isinstance(text, str):
        return text
    if wrong := set(text) - set("01-"):
        raise ValueError(f"expected the characters 0, 1 and -, but got {min(wrong)!r}")
    return [None if one == "-" else int(one) for one in text]


_READ = BeforeValidator(_spelled_out)
Marks = Annotated[list[float], _READ]
"""One number an image; in a record also a text of the characters 0 and 1."""


@checked(config=ConfigDict(extra="forbid"))
class Facts:
    """What happened to each image, one number an image: 0 or 1, or a share where the defense is random.

    Attributes:
        index: the image's place in its data set.
        label: its class.
        eligible: whether there was something to gain for the attacker on the attacked model.
        bare_clean, bare_attacked: bare model right on the clean image, on the image crafted on the bare model.
        defended_clean, defended_attacked: defended model right; a changed image that is rejected counts as
            right, an unchanged one as wrong.
        defended_attacked_8bit: the same after rounding the attacked image to the 8-bit grid.
        reached: whether the attacker's goal was reached on the defended model (eligible images only).
        defended_occluded: defended model right with the changed pixels grey instead (patch attacks only).
        rejected_clean, rejected_attacked: whether the defended model rejected the image (detectors only).
        certified: whether the defense proves its answer within the attack's budget (certified defenses only).
        noted: what the attack noted about each image, such as `unconverged` or `pixels`; None where nothing.
    """

    index: list[int]
    label: list[int]
    eligible: Annotated[list[int], _READ]
    bare_clean: Marks
    bare_attacked: Marks
    defended_clean: Marks
    defended_attacked: Marks
    defended_attacked_8bit: Marks
    reached: Marks
    defended_occluded: Marks | None = None
    rejected_clean: Marks | None = None
    rejected_attacked: Marks | None = None
    certified: Annotated[list[int], _READ] | None = None
    noted: dict[str, Annotated[list[float | None], _READ]] = field(default_factory=dict)


@checked(config=ConfigDict(extra="forbid"))
class PluginRecord:
    """What is known of an attack or a defense without importing it.

    Attributes:
        name, title, paper: as in the registry and the class.
        parameters: every field with its value.
        traits: attack: `threat_model`, `budget`, `access`, `universal`; defense: `kind`, `views` (of the
            attacker), `random`, `rejects`, `passes` (forward passes an image), `tuned_on`.
        note: a remark that belongs beside every number of it ("" if none).
    """

    name: str
    title: str
    paper: str
    parameters: dict[str, Any]
    traits: dict[str, Any]
    note: str = ""


@checked(config=ConfigDict(extra="forbid"))
class Outcome:
    """The record of one cell.

    Attributes:
        status: only `ok` comes with facts; the others come with a reason.
        attack, defense: None where the plugin could not even be made.
        queries: mean forward and backward queries for each attacked image, and their maxima.
        warnings: what makes the numbers doubtful, with figures.
        findings: what the checks of the run found, by the ids of the checks, such as "S34"; each is a red flag.
        fingerprints: of data, weights, attack code, defense code and protocol; a change makes the cell stale.
        provenance: versions, device, draws.
        training: what the defense's training took, if it has any: `seconds`, `peak_mib` (memory, on a CPU beyond what
            the process took before), `images`, and `epochs` where it counts them.
        seconds, date: times; with those of the training the only parts that differ when a cell is computed again.
    """

    cell: Cell
    status: Status
    reason: str = ""
    classes: int = 0
    attack: PluginRecord | None = None
    defense: PluginRecord | None = None
    facts: Facts | None = None
    queries: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    findings: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    training: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    date: str = ""
    schema: int = SCHEMA
    kind: ClassVar[str] = "outcome"


@checked(config=ConfigDict(extra="forbid"))
class Latency:
    """The record of how long a bare and a defended model take on one machine.

    Attributes:
        batches: batch size -> median and quartiles in ms an image of the bare and of the defended model
            (`bare`, `bare_low`, `bare_high`, `defended`, …), and `ratio`, the ratio of the medians.
    """

    dataset: str
    model: str
    defense: str
    batches: dict[int, dict[str, float]]
    machine: str
    fingerprints: dict[str, str] = field(default_factory=dict)
    date: str = ""
    schema: int = SCHEMA
    kind: ClassVar[str] = "latency"

    @property
    def group(self) -> tuple[str, str]:
        """As for a cell."""
        return Cell(self.dataset, self.model, "", self.defense, "oblivious").group

    @property
    def slug(self) -> str:
        """As for a cell."""
        words = f"latency-{self.defense}"
        safe = re.sub(r"[^A-Za-z0-9]+", "-", words).strip("-")[:60]
        key = f"{self.dataset} {self.model} {self.defense}"
        return f"{safe}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"
