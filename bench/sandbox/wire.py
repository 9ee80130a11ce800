"""What goes through the pipes between the two sides: JSON and safetensors, never a pickle."""

from __future__ import annotations

import json
from multiprocessing.connection import Connection
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

WORDS, NUMBERS = 2**20, 2**30
"""The most bytes of one message: of its JSON, of its tensors."""


def send(pipe: Connection, message: dict[str, Any], tensors: dict[str, Tensor] | None = None) -> None:
    """Sends a message and tensors of any device."""
    pipe.send_bytes(json.dumps(message).encode())
    pipe.send_bytes(save({name: one.detach().cpu().contiguous() for name, one in (tensors or {}).items()}))


def receive(pipe: Connection) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The next message; raises EOFError, OSError or ValueError where there is none or it is no message."""
    message = json.loads(pipe.recv_bytes(WORDS))
    if not isinstance(message, dict):
        raise ValueError(f"expected a message, but got {type(message).__name__}")
    return message, load(pipe.recv_bytes(NUMBERS))
