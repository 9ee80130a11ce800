"""The cell of the matrix and its record: what happened to each image, and what that depends on."""

from __future__ import annotations

import hashlib
import math
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict, field, fields, replace
from pathlib import PurePath
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.dataclasses import dataclass as checked

from bench.core.identity import without_folders
from bench.errors import InputError

SCHEMA = 2
"""The form of records; 2 has a checksum."""

Tier = Literal["oblivious", "adaptive"]
Effort = Literal["quick", "standard", "paper"]
Status = Literal["ok", "error", "timeout", "out-of-memory", "not-applicable"]
Precision = Literal["float32", "bfloat16"]
TIERS: tuple[Tier, ...] = ("oblivious", "adaptive")


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Cell:
    """One cell of the matrix. It prints as `key=value` words that `Cell.parse` reads back.

    Attributes:
        dataset, model, attack, defense: their texts; in place of a path they have the last name of the file or folder
            and a short hash of its content, as in `best.pt@1a2b3c4d`.
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
    goal: Annotated[str, Field(pattern=r"^(untargeted|targeted(:.+)?)$")] = "untargeted"
    effort: Effort = "standard"
    images: NonNegativeInt = 0
    seed: NonNegativeInt = 0

    def __str__(self) -> str:
        return " ".join(f"{key}={shlex.quote(str(value))}" for key, value in asdict(self).items())

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Reads the printed form back; raises InputError if it is not one."""
        try:
            return TypeAdapter(cls).validate_python(split_words(text))
        except ValidationError as error:
            known = ", ".join(key.name for key in fields(cls))
            raise InputError(f"Expected key=value words with the keys {known}, but got {text!r}.") from error

    def with_texts(self, change: Callable[[str], str]) -> Cell:
        """The cell with its four texts changed, such as by `without_hashes`."""
        return replace(
            self,
            dataset=change(self.dataset),
            model=change(self.model),
            attack=change(self.attack),
            defense=change(self.defense),
        )

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


def split_words(text: str) -> dict[str, str]:
    """The `key=value` words of a text; raises InputError if its quotes do not match."""
    try:
        return dict(word.partition("=")[::2] for word in shlex.split(text))
    except ValueError as error:
        raise InputError(f"Expected key=value words, but got {text!r}: {error}.") from error


def first_problem(error: ValidationError) -> str:
    """Where the first thing that is wrong is, and what."""
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"])
    return ": ".join(filter(None, (place, problem["msg"].removeprefix("Value error, "))))


def spell(values: Any) -> Any:
    """A list of only 0, 1 and None as one character each (`10-1`), as files have it; other lists unchanged."""
    if isinstance(values, list) and values and all(value in (0, 1, None) for value in values):
        return "".join("-" if value is None else str(int(value)) for value in values)
    return values


def _spelled_out(text: Any) -> Any:
    """The inverse of `spell`; raises ValueError for other characters."""
    if not isinstance(text, str):
        return text
    if wrong := set(text) - set("01-"):
        raise ValueError(f"expected the characters 0, 1 and -, but got {min(wrong)!r}")
    return [None if mark == "-" else int(mark) for mark in text]


_SPELLED = BeforeValidator(_spelled_out)


def _form(lowest: float | None, highest: float | None, kind: str, marks: str) -> WithJsonSchema:
    """The JSON Schema of a list with a value for each image, or of a text with a character for each."""
    bounds = {name: value for name, value in (("minimum", lowest), ("maximum", highest)) if value is not None}
    values: dict[str, Any] = {"type": kind, **bounds}
    if "-" in marks:
        values = {"anyOf": [values, {"type": "null"}]}
    text = {"type": "string", "pattern": f"^[{marks}]*$"}
    return WithJsonSchema({"anyOf": [{"type": "array", "items": values}, text]})


Share = Annotated[FiniteFloat, Field(ge=0, le=1)]
Amount = Annotated[FiniteFloat, Field(ge=0)]
Date = Annotated[str, Field(pattern=r"^(\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:\d\d|Z)?)?)?$")]
Message = Annotated[str, AfterValidator(without_folders)]
"""Text of any origin, such as an error's, without folders of this machine."""

Marks = Annotated[list[Share], _SPELLED, _form(0, 1, "number", "01")]
"""One share per image; in a file it may be a text of the characters 0 and 1."""
Flags = Annotated[list[Annotated[int, Field(ge=0, le=1)]], _SPELLED, _form(0, 1, "integer", "01")]
"""0 or 1 for each image; in a file it may be a text of these characters."""
Notes = Annotated[list[FiniteFloat | None], _SPELLED, _form(None, None, "number", "01-")]
"""A number for each image, or None; in a file it may be a text of the characters 0, 1 and -."""


@checked(config=ConfigDict(extra="forbid"))
class Facts:
    """What happened to each image: lists of one length, with 0 or 1, or a share if the defense is random.

    Attributes:
        index: the image's place in its data set; each once.
        label: its class.
        eligible: whether the attacker had something to gain on the attacked model.
        bare_clean, bare_attacked: bare model correct on the clean image, on the image crafted on the bare model.
        defended_clean, defended_attacked: defended model correct; a changed image that is rejected counts as
            correct, an unchanged one as wrong. Measures do not count it where the clean image is rejected too.
        defended_attacked_8bit: the same after rounding the attacked image to the 8-bit grid.
        reached: whether the attacker's goal was reached on the defended model (eligible images only).
        defended_occluded: defended model correct with the changed pixels grey instead (patch attacks only).
        rejected_clean, rejected_attacked: whether the defended model rejected the image (detectors only).
        certified: whether the defense proves its answer within the attack's budget (certified defenses only).
        noted: what the attack noted about each image, such as `unconverged` or `pixels`; None where nothing.
    """

    index: list[NonNegativeInt]
    label: list[NonNegativeInt]
    eligible: Flags
    bare_clean: Marks
    bare_attacked: Marks
    defended_clean: Marks
    defended_attacked: Marks
    defended_attacked_8bit: Marks
    reached: Marks
    defended_occluded: Marks | None = None
    rejected_clean: Marks | None = None
    rejected_attacked: Marks | None = None
    certified: Flags | None = None
    noted: dict[str, Notes] = field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        images = len(self.index)
        columns = {key.name: getattr(self, key.name) for key in fields(self) if key.name != "noted"} | self.noted
        for name, values in columns.items():
            if values is not None and len(values) != images:
                raise ValueError(f"expected {images} values of {name}, one for each index, but got {len(values)}")
        if len(set(self.index)) < images:
            raise ValueError("expected each index only once")
        return self


COVERED, COVERED_WRONGLY = "covered", "covered wrongly"
"""Notes of the judge on a defense that finds attacked pixels: the share of them, and of the image besides them."""


@checked(config=ConfigDict(strict=True, extra="ignore"))
class _Traits:
    """The types of `PluginRecord.traits`."""

    threat_model: str = ""
    budget: str = ""
    access: str = ""
    accesses: list[str] = field(default_factory=list)
    universal: bool = False
    kind: str = ""
    views: list[str] = field(default_factory=list)
    trained: bool = False
    random: bool = False
    rejects: bool = False
    passes: Amount = 1
    tuned_on: list[str] = field(default_factory=list)
    ranked: bool = True


def _publishable(value: Any) -> Any:
    """A parameter's value without folders of this machine, and with text for infinity, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _publishable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_publishable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return without_folders(str(value)) if isinstance(value, str | PurePath) else value


def _checked_traits(traits: dict[str, Any]) -> dict[str, Any]:
    try:
        _Traits(**traits)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
    return traits


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
    parameters: Annotated[dict[str, Any], BeforeValidator(_publishable)]
    traits: Annotated[dict[str, Any], AfterValidator(_checked_traits)]
    note: str = ""


@checked(config=ConfigDict(extra="forbid"))
class Outcome:
    """The record of one cell.

    Attributes:
        status: only `ok` comes with facts; the others come with a reason.
        attack, defense: None where the plugin could not even be made.
        queries: mean forward and backward queries for each attacked image, and their maxima.
        warnings: what makes the numbers doubtful, with figures.
        fingerprints: of data, weights, attack code, defense code and protocol; a change makes the cell stale.
        provenance: versions, device, draws.
        training: what the defense's training took, if it has any: `seconds`, `peak_mib` (memory, on a CPU beyond what
            the process took before), `images`, and `epochs` where it counts them.
        seconds, date: times; with those of the training the only parts that differ when a cell is computed again.
    """

    cell: Cell
    status: Status
    reason: Message = ""
    classes: int = 0
    attack: PluginRecord | None = None
    defense: PluginRecord | None = None
    facts: Facts | None = None
    queries: dict[str, Amount] = field(default_factory=dict)
    warnings: list[Message] = field(default_factory=list)
    fingerprints: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, str] = field(default_factory=dict)
    training: dict[str, Amount] = field(default_factory=dict)
    seconds: dict[str, Amount] = field(default_factory=dict)
    date: Date = ""
    schema: int = SCHEMA
    kind: ClassVar[str] = "outcome"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.status == "ok") != (self.facts is not None):
            raise ValueError(f"expected facts with the status ok and only with it, but the status is {self.status}")
        if self.facts is None:
            if not self.reason:
                raise ValueError(f"expected a reason with the status {self.status}")
            return self
        if self.attack is None or self.defense is None:
            raise ValueError("expected attack and defense with the status ok")
        images, imported = len(self.facts.index), self.cell.attack.startswith("imported:")
        if self.cell.images and images != self.cell.images and not (imported and images < self.cell.images):
            raise ValueError(f"expected facts of {self.cell.images} images, as its cell says, but got {images}")
        if max(self.facts.label) >= self.classes:
            raise ValueError(
                f"expected labels below {self.classes}, the number of classes, but got {max(self.facts.label)}"
            )
        return self


@checked(config=ConfigDict(extra="forbid"))
class Latency:
    """The record of how long a bare and a defended model take on one machine.

    Attributes:
        batches: batch size -> median and quartiles in ms an image of the bare and of the defended model
            (`bare`, `bare_low`, `bare_high`, `defended`, …), and `ratio`, the ratio of the medians.
        status, reason: as for a cell; only `ok` comes with batches.
    """

    dataset: str
    model: str
    defense: str
    batches: dict[PositiveInt, dict[str, Amount]]
    machine: str
    fingerprints: dict[str, str] = field(default_factory=dict)
    date: Date = ""
    status: Status = "ok"
    reason: Message = ""
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
