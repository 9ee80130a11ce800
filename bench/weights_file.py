"""Weights from a file: safetensors, or a state dict saved by torch; nothing but tensors is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bench.errors import InputError


def shipped_weights(name: str) -> Path:
    """The file of weights that comes with this package under that name."""
    return Path(__file__).parent / "weights" / f"{name}.safetensors"


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads the weights of a file into a network.

    The weights of a checkpoint may also be under "state_dict", "model", "net" or "last" (of an early stopping that also
    kept the best), and their names may begin with "module." or "model.", as those of RobustBench's checkpoints. The
    counters of batches in batch norms may be missing.

    Args:
        network: gets the weights; it stays as it is if an error is raised.
        path: ends in .safetensors, or was written by torch.save.

    Raises:
        InputError: the file is missing, damaged or contains code, or its names or shapes are not those of the network.
    """
    expected = network.state_dict()
    weights = _renamed(_read(path), expected)
    problems = {
        "absent": [key for key in expected if key not in weights and not key.endswith("num_batches_tracked")],
        "unknown": [key for key in weights if key not in expected],
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in expected
            if key in weights and weights[key].shape != expected[key].shape
        ],
    }
    parts = [f"{len(keys)} {kind} ({', '.join(keys[:3])}…)" for kind, keys in problems.items() if keys]
    if parts:
        raise InputError(
            f"The weights in {path} do not fit this network of {len(expected)} tensors: {'; '.join(parts)}."
        )
    network.load_state_dict(weights, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"Expected a file of weights, but there is no file {path}.")
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # a damaged file fails in many ways
        raise InputError(
            f"The weights in {path} cannot be read: it must be safetensors, or a state dict saved by torch.save with "
            f"tensors only (no pickled code), and whole. {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        ) from error
    for key in ("last", "state_dict", "model", "net"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"Expected a state dict (name -> tensor) in {path}, but got {type(content).__name__}.")
    return {str(key): tensor for key, tensor in content.items()}


def _renamed(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without prefixes that wrappers left in their names, unless the network's own names have them."""
    for prefix in ("module.", "model."):
        if not any(key.startswith(prefix) for key in expected):
            weights = {key.removeprefix(prefix): tensor for key, tensor in weights.items()}
    return weights
