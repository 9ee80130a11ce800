"""The options that several commands share, and what their words mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bench.errors import InputError

if TYPE_CHECKING:
    from bench.records.schema import Tier

Results = Annotated[Path, typer.Option(help="Folder of the records and the tables.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", help="A Python file with plugins; repeatable.")]
Dataset = Annotated[str, typer.Option(help="A data set; see 'bench list'.")]
Model = Annotated[str, typer.Option(help="A classifier; see 'bench list'.")]
Weights = Annotated[Path | None, typer.Option(help="The model's weights: safetensors, or a state dict.")]
Mean = Annotated[str | None, typer.Option(help="Normalisation inside the model, such as 0.5:0.5:0.5.")]
Std = Annotated[str | None, typer.Option(help="As --mean.")]
Device = Annotated[str, typer.Option(help="Where torch computes: cpu, cuda, cuda:1.")]
Images = Annotated[str, typer.Option(help="How many evaluation images, or 'all'.")]
Tiers = Annotated[Literal["oblivious", "adaptive", "both"], typer.Option(help="What the attacker knows.")]
Targeted = Annotated[bool, typer.Option("--targeted", help="Want a random other class for each image.")]
Target = Annotated[str | None, typer.Option(help="Want this class: its name or its number.")]
Effort = Annotated[Literal["quick", "standard", "paper"], typer.Option(help="Presets of the attacks.")]
Seeds = Annotated[str, typer.Option(help="Seeds with commas between them.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0 computes in this one.")]
Timeout = Annotated[float | None, typer.Option(min=1, help="Seconds that a cell may take.")]


def add_plugins(plugins: list[Path] | None) -> None:
    """Registers what these files define."""
    from bench.plugins.registry import add_file

    for path in plugins or []:
        add_file(path)


def count(images: str) -> int | None:
    """How many images; None for all."""
    return None if images == "all" else whole(images, "--images")


def goal_of(targeted: bool, target: str | None) -> str:
    """As `Cell.goal`."""
    return f"targeted:{target}" if target is not None else "targeted" if targeted else "untargeted"


def tiers_of(tier: Literal["oblivious", "adaptive", "both"]) -> tuple[Tier, ...]:
    """The tiers that a word names."""
    return ("oblivious", "adaptive") if tier == "both" else (tier,)


def whole(text: str, option: str) -> int:
    """The whole number that was given to an option."""
    from bench.plugins.specs import read

    number: int = read(text, int, option)
    return number


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    """The numbers, with colons between them, that were given to an option."""
    from bench.plugins.specs import read

    return None if text is None else read(text, tuple[float, ...], option)


def checked_device(text: str) -> str:
    """The device, if torch has it."""
    import torch

    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"Expected a device that torch has here (cpu, cuda …), but got {text!r}.") from error
    return text
