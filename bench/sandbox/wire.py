"""What goes through the pipes between the two sides: JSON and safetensors, never a pickle."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

Answer = tuple[dict[str, Any], dict[str, Tensor]]
"""A message, and tensors by name."""

LEAST = 2**20
"""Bytes that any message may have, and its tensors."""


def send(pipe: Connection, message: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> int:
    """Sends a message and tensors of any device; returns how many bytes the tensors took."""
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()})
    pipe.send_bytes(json.dumps(message).encode())
    pipe.send_bytes(content)
    return len(content)


def receive(pipe: Connection, most: int) -> Answer:
    """The next message, with tensors of at most that many bytes.

    Raises EOFError, OSError, ValueError or SafetensorError where none comes or it is not one.
    """
    message = json.loads(pipe.recv_bytes(LEAST))
    if not isinstance(message, dict):
        raise ValueError(f"expected a message, but got {type(message).__name__}")
    return message, load(pipe.recv_bytes(most))
