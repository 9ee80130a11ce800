"""Experiment files: the options of `bench run` in TOML, checked as a whole, with the line of what is wrong."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError, WithJsonSchema
from pydantic.dataclasses import dataclass as checked

from bench.errors import InputError
from bench.plugins.specs import check_known
from bench.records.schema import Effort, Precision


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else (value,)


def _one_or_more(item: dict[str, Any]) -> tuple[BeforeValidator, Field, WithJsonSchema]:  # type: ignore[valid-type]  # Field is a function
    """Lets a tuple be given as a single value, and forbids an empty one."""
    schema = {"anyOf": [item, {"type": "array", "items": item, "minItems": 1}]}
    return BeforeValidator(_listed), Field(min_length=1), WithJsonSchema(schema)


_Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[tuple[_Text, ...], *_one_or_more({"type": "string", "minLength": 1})]
_Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], *_one_or_more({"type": "integer", "minimum": 0})]
_STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


@checked(frozen=True, config=_STRICT)
class Description:
    """What makes an experiment a benchmark: what it is about and what its rows are compared by."""

    title: str
    """Of its pages and tables."""

    threat: str
    """The threat model and the budget, in words."""

    counts: str
    """Which number a row is judged by, in words."""

    data: _Texts
    """The data sets that it is about, by their names in records; `*` stands for any characters."""

    weights: str = ""
    """Where the weights of its model come from, if the model's name alone does not say it."""


@checked(frozen=True, config=_STRICT)
class Experiment:
    """An experiment of `bench run`. Keys are its options, with `_` for `-`; lists are crossed with each other."""

    dataset: _Texts | None = None
    """Data sets; see `bench list datasets`."""

    model: _Texts | None = None
    """Classifiers; see `bench list models`. One with weights in a file is written NAME:weights=FILE."""

    weights: _Text | None = None
    """The weights of the only model: safetensors or a state dict."""

    mean: _Text | None = None
    """Normalisation inside the models, such as 0.5:0.5:0.5."""

    std: _Text | None = None
    """As mean."""

    attack: _Texts | None = None
    """Attacks, or `all`."""

    defense: _Texts | None = None
    """Defenses, or `all`."""

    tier: Literal["oblivious", "adaptive", "both"] | None = None
    """What the attacker knows."""

    targeted: bool | None = None
    """Aim at a random other class for each image."""

    target: _Text | None = None
    """Aim at this class: its name or its number."""

    effort: Effort | None = None
    """Preset of the attacks."""

    precision: Precision | None = None
    """Of the attacks' queries; results are always float32."""

    images: PositiveInt | Literal["all"] | None = None
    """How many evaluation images."""

    seed: _Seeds | None = None
    """Seeds of every random number."""

    device: _Text | None = None
    """Devices of torch with commas, a worker for each: cpu, cuda:1, cuda for all GPUs."""

    engine: Literal["local", "slurm", "ray"] | None = None
    """Where to compute; see docs/cluster.md."""

    workers: Annotated[int, Field(ge=0)] | None = None
    """Worker processes, here or in a job; 0 computes in the process of the command."""

    cells_per_job: PositiveInt | None = None
    """Cells in a job, at most."""

    gpus_per_node: Annotated[int, Field(ge=0)] | None = None
    """GPUs of a job; by default 1 for cuda."""

    cpus_per_task: PositiveInt | None = None
    """CPU cores of a job."""

    memory: Annotated[float, Field(gt=0)] | None = None
    """GB of memory of a Slurm job."""

    jobs: PositiveInt | None = None
    """Slurm jobs that run at once, at most."""

    job_minutes: PositiveInt | None = None
    """Time limit of a Slurm job; it goes on in the next."""

    partition: _Text | None = None
    """Slurm's partition."""

    account: _Text | None = None
    """Slurm's account."""

    qos: _Text | None = None
    """Slurm's quality of service."""

    address: _Text | None = None
    """Address of a Ray cluster; by default Ray starts on this machine."""

    timeout: Annotated[float, Field(ge=1)] | None = None
    """Seconds that each cell may take."""

    time_limit: _Text | None = None
    """Start no cell that would not finish within this time, such as 2h or 1h30m."""

    retry: Literal["failed", "none", "all"] | None = None
    """Which cells without a number to compute again: failed ones, none, or all, even those that made no sense."""

    verbose: bool | None = None
    """Write a log into results/logs."""

    batch_size: PositiveInt | None = None
    """Images attacked at once."""

    plugin: _Texts | None = None
    """Python files with plugins."""

    benchmark: Description | None = None
    """What is said of a benchmark; `bench run` needs none of it."""

    def options(self) -> dict[str, Any]:
        """The options of `bench run` that it gives, as the command line takes them."""
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "benchmark"}
        return {
            name: list(value) if name == "plugin" else _as_option(value)
            for name, value in given.items()
            if value is not None
        }


_KEYS = {field.name for kind in (Experiment, Description) for field in fields(kind)}
_START = re.compile(r"^(Input|Value|String) should (be|have) | after validation.*")
"""What the messages of pydantic begin and end with."""


def _as_option(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class ExperimentFile:
    """A file that has been checked.

    Attributes:
        path: where it is.
        text: its content.
        experiment: what it says.
    """

    path: Path
    text: str
    experiment: Experiment

    def place(self, key: str) -> str:
        """Where a key is, for error messages."""
        return _place(self.path, self.text, key)


def load_experiment(path: Path) -> ExperimentFile:
    """Reads an experiment file and checks its keys and the types of its values.

    Raises:
        InputError: it cannot be read, or something in it is wrong; the message names the line or the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text + "\n")  # or errors in the last line have no line number
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Expected an experiment file, but {path} cannot be read: {error}.") from error
    except (ValueError, RecursionError) as error:  # also for numbers and brackets beyond the limits of Python
        raise InputError(f"{path} is not TOML: {error}.") from error
    for kind, part, front in ((Experiment, tree, ""), (Description, tree.get("benchmark"), "benchmark.")):
        for key in part if isinstance(part, dict) else ():
            _check_key(path, text, key, kind, front)
    try:
        # Strict types forbid a dict where a class belongs, but in JSON there is nothing else.
        return ExperimentFile(path, text, TypeAdapter(Experiment).validate_json(json.dumps(tree, default=str)))
    except ValidationError as error:
        raise InputError(_problem(path, text, error)) from error


def schema_text() -> str:
    """The JSON Schema of experiment files, as docs/experiment.schema.json has it."""
    schema = TypeAdapter(Experiment).json_schema()
    for tree in (schema, *schema["$defs"].values()):
        for value in tree["properties"].values():
            if value.get("default", "") is None:  # TOML has no null
                del value["default"]
                value["anyOf"] = [kind for kind in value["anyOf"] if kind != {"type": "null"}]
                if len(value["anyOf"]) == 1:
                    value |= value.pop("anyOf")[0]
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def toml_text(values: Mapping[str, Any]) -> str:
    """Texts, numbers, truth values and lists of them as TOML, a line for each key."""
    return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())


def _check_key(path: Path, text: str, key: str, kind: type, front: str) -> None:
    what = "key of [benchmark]" if front else "key of an experiment"
    try:
        check_known(key, [field.name for field in fields(kind)], what)
    except InputError as error:
        raise InputError(f"{_place(path, text, front + key)}: {error}") from error


def _problem(path: Path, text: str, error: ValidationError) -> str:
    """The first thing that is wrong: where, what was expected, and what is there."""
    first, *others = error.errors()
    same = [first, *(other for other in others if other["input"] == first["input"])]  # the alternatives of one value
    expected = " or ".join(_START.sub("", problem["msg"]) for problem in same)
    key = ".".join(part for part in first["loc"] if part in _KEYS)
    if first["type"] == "missing":
        return f"{path}: expected {key}, but it is missing."
    return f"{_place(path, text, key)}: expected {expected}, but got {first['input']!r}."


def _place(path: Path, text: str, key: str) -> str:
    """The file, the line of a key if it can be found, and the key."""
    table, _, name = key.rpartition(".")
    begun = not table
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*(\S+?)\s*\]", line):
            begun = header[1] == table
        elif begun and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]", line):
            return f"{path}, line {number}, {key}"
    return f"{path}, {key}"
