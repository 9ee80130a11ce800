"""The options that several commands share, and what is made of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from bench.errors import InputError
from bench.records.schema import TIERS, Effort, Precision, Tier

if TYPE_CHECKING:
    from bench.engine.engines import Engine
    from bench.engine.plan import Plan
    from bench.engine.setting import Setting
    from bench.records.store import Store

ResultsOption = Annotated[Path, typer.Option(help="Folder of the records and tables.")]
PluginsOption = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with plugins; repeatable.")]
DatasetOption = Annotated[str, typer.Option(help="A data set; see 'bench list datasets'. A run takes several.")]
ModelOption = Annotated[str, typer.Option(help="A classifier; see 'bench list models'. A run takes several.")]
WeightsOption = Annotated[Path | None, typer.Option(help="The model's weights: safetensors or a state dict.")]
DeviceOption = Annotated[str, typer.Option(help="A device of torch: cpu, cuda, cuda:1.")]
DevicesOption = Annotated[
    str, typer.Option(help="Devices of torch with commas, a worker for each: cpu, cuda:0,cuda:1, cuda for all GPUs.")
]
ImagesOption = Annotated[str, typer.Option(help="Number of evaluation images, or 'all'.")]
EffortOption = Annotated[Effort, typer.Option(help="Preset of the attacks.")]
SeedsOption = Annotated[str, typer.Option(help="Seeds, separated by commas.")]
WorkersOption = Annotated[int, typer.Option(min=0, help="Worker processes; 0 computes in this one.")]
TimeoutOption = Annotated[float | None, typer.Option(min=1, help="Seconds that each cell may take.")]
PrecisionOption = Annotated[Precision, typer.Option(help="Of the attacks' queries; results are always float32.")]
RetryOption = Annotated[
    Literal["failed", "none", "all"],
    typer.Option(help="Which cells without a number to compute again: failed ones, none, or all."),
]
AttacksOption = Annotated[str, typer.Option(help="Attacks, separated by commas, or 'all'.")]
DefensesOption = Annotated[str, typer.Option(help="Defenses, separated by commas, or 'all'.")]


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Data and model."""

    dataset: DatasetOption = "photos"
    model: ModelOption = "photos-cnn"
    weights: WeightsOption = None
    mean: Annotated[str | None, typer.Option(help="Normalisation inside the model, such as 0.5:0.5:0.5.")] = None
    std: Annotated[str | None, typer.Option(help="As --mean.")] = None
    device: DeviceOption = "cpu"

    def setting(self) -> Setting:
        """Where the inputs are; raises InputError for a number or a device that cannot be."""
        from bench.engine.setting import Setting, data_text, split_weights

        model, weights = split_weights(self.model)
        if weights and self.weights:
            raise InputError(
                f"Expected weights once, but got {self.weights} with --weights and {weights} in the model."
            )
        return Setting(
            dataset=data_text(self.dataset, model),
            model=model,
            weights=weights or self.weights,
            mean=_numbers(self.mean, "--mean"),
            std=_numbers(self.std, "--std"),
            device=self.checked_device(),
        )

    def checked_device(self) -> str:
        """Where to compute; raises InputError for a device that torch does not have here."""
        return checked_device(self.device)


def _engine_option(help_text: str, **more: Any) -> Any:
    return typer.Option(help=help_text, rich_help_panel="Engine", **more)


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Where the cells are computed."""

    engine: Annotated[Literal["local", "slurm", "ray"], _engine_option("Where to compute; see docs/cluster.md.")] = (
        "local"
    )
    workers: Annotated[int, _engine_option("Worker processes, here or in a job; 0 computes in this one.", min=0)] = 1
    cells_per_job: Annotated[int, _engine_option("Cells in a job, at most.", min=1)] = 20
    gpus_per_node: Annotated[int | None, _engine_option("GPUs of a job; by default 1 for cuda.", min=0)] = None
    cpus_per_task: Annotated[int | None, _engine_option("CPU cores of a job.", min=1)] = None
    memory: Annotated[float | None, _engine_option("GB of memory of a Slurm job.")] = None
    jobs: Annotated[int, _engine_option("Slurm jobs that run at once, at most.", min=1)] = 16
    job_minutes: Annotated[int, _engine_option("Time limit of a Slurm job; it goes on in the next.", min=1)] = 240
    partition: Annotated[str | None, _engine_option("Slurm's partition.")] = None
    account: Annotated[str | None, _engine_option("Slurm's account.")] = None
    qos: Annotated[str | None, _engine_option("Slurm's quality of service.")] = None
    address: Annotated[str | None, _engine_option("Address of a Ray cluster; by default Ray starts here.")] = None

    def make_engine(self, device: str) -> Engine:
        """The engine that is asked for, for these devices; raises MissingExtraError if its extra is missing."""
        gpus = self.gpus_per_node if self.gpus_per_node is not None else int(device.startswith("cuda"))
        if self.engine == "slurm":
            from bench.engine.slurm import Slurm

            return Slurm(
                workers=max(1, self.workers),
                cells_per_job=self.cells_per_job,
                minutes=self.job_minutes,
                jobs=self.jobs,
                gpus_per_node=gpus or None,
                cpus_per_task=self.cpus_per_task,
                memory_gb=self.memory,
                partition=self.partition,
                account=self.account,
                qos=self.qos,
            )
        if self.engine == "ray":
            from bench.engine.on_ray import Ray

            cpus = self.cpus_per_task or 1
            return Ray(max(1, self.workers), self.cells_per_job, self.address, gpus_per_job=gpus, cpus_per_job=cpus)
        from bench.engine.engines import Local, devices_of

        return Local(self.workers, devices_of(device))


@dataclass(frozen=True, kw_only=True)
class MatrixOptions(InputOptions, EngineOptions):
    """Everything about a matrix of cells but its attacks and defenses."""

    device: DevicesOption = "cpu"
    images: ImagesOption = "200"
    tier: Annotated[Literal["oblivious", "adaptive", "both"], typer.Option(help="What the attacker knows.")] = "both"
    targeted: Annotated[bool, typer.Option("--targeted", help="Aim at a random other class for each image.")] = False
    target: Annotated[str | None, typer.Option(help="Aim at this class: its name or its number.")] = None
    effort: EffortOption = "standard"
    seed: SeedsOption = "0"
    timeout: TimeoutOption = None
    retry: RetryOption = "failed"
    precision: PrecisionOption = "float32"
    results: ResultsOption = Path("results")
    plugin: PluginsOption = None

    def setting(self) -> Setting:
        """As `InputOptions.setting`, with the images, the goal and the precision."""
        from bench.engine.prepare import check_precision

        aim = f"targeted:{self.target}" if self.target is not None else "targeted" if self.targeted else "untargeted"
        setting = super().setting()
        if self.engine == "local":
            check_precision(self.precision, setting.device)
        return replace(setting, images=image_count(self.images), goal=aim, precision=self.precision)

    def checked_device(self) -> str:
        """The first of the devices; only the engine knows whether another machine has it."""
        from bench.engine.engines import devices_of

        if self.engine != "local":
            return self.device
        devices = [checked_device(device) for device in devices_of(self.device)]
        return devices[0]

    def settings(self) -> list[Setting]:
        """One for each data set with each model."""
        from bench.plugins.specs import split_specs

        models = split_specs(self.model)
        if self.weights and len(models) > 1:
            raise InputError(
                f"Expected one model with --weights {self.weights}, but got {len(models)}. Write the weights with the "
                f"models: {models[0]}:weights={self.weights},{models[1]}:weights=FILE."
            )
        crossed = dict.fromkeys((dataset, model) for dataset in split_specs(self.dataset) for model in models)
        if not crossed:
            raise InputError(
                f"Expected at least one data set and one model, but got {self.dataset!r} and {self.model!r}."
            )
        return [replace(self, dataset=dataset, model=model).setting() for dataset, model in crossed]

    def plan(self, attack: str, defense: str, store: Store, batch_size: int | None = None) -> Plan:
        """What to compute; raises InputError before any work is done."""
        from bench.engine.plan import joined, plan

        tiers: tuple[Tier, ...] = TIERS if self.tier == "both" else (self.tier,)
        settings = [replace(setting, batch_size=batch_size) for setting in self.settings()]
        seeds = seeds_of(self.seed)
        elsewhere = self.engine != "local"
        return joined(
            plan(setting, attack, defense, tiers, seeds, self.effort, store, elsewhere, self.retry)
            for setting in settings
        )


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of every dataclass among its parameters."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            types = get_type_hints(groups[name], include_extras=True)
            parameters += [_parameter(field.name, types[field.name], field.default) for field in fields(groups[name])]
        else:
            parameters.append(_parameter(name, hints[name], parameter.default))

    @wraps(command)
    def called(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**made, **given)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def add_plugins(plugins: list[Path] | None) -> None:
    """Registers what these files define."""
    if plugins:
        from bench.engine.workers import load_plugins

        load_plugins(plugins)


def image_count(text: str) -> int | None:
    """The number of images; None for all."""
    return None if text == "all" else _whole_number(text, "--images")


def seeds_of(text: str) -> list[int]:
    """The seeds in a text with commas between them, each once; raises InputError for a negative one."""
    seeds = [_whole_number(seed, "--seed") for seed in text.split(",")]
    if min(seeds) < 0:
        raise InputError(f"Expected seeds from 0 for --seed, but got {text!r}.")
    return list(dict.fromkeys(seeds))


def time_of(text: str | None) -> float | None:
    """Seconds of a time such as 2h, 90m or 1h30m; None for None. Raises InputError for another text."""
    if text is None:
        return None
    parts = re.fullmatch(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", text)
    units = zip(parts.groups(), (86_400, 3600, 60, 1), strict=True) if parts else ()
    seconds = sum(int(number or 0) * unit for number, unit in units)
    if not seconds:
        raise InputError(f"Expected a time such as 2h, 90m or 1h30m for --time-limit, but got {text!r}.")
    return float(seconds)


def checked_device(text: str) -> str:
    """The device, if torch has it here."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Expected a device that torch has here (cpu, cuda …), but got {text!r}.") from error
    return text


def _whole_number(text: str, option: str) -> int:
    from bench.plugins.specs import parse_value

    number: int = parse_value(text, int, option)
    return number


def _numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """Numbers with colons between them."""
    from bench.plugins.specs import parse_value

    return None if text is None else parse_value(text, tuple[float, ...], option)
