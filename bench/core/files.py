"""Files written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_text(path: Path, text: str, lasting: bool = True) -> None:
    """Writes a text file, as `write_bytes`."""
    write_bytes(path, text.encode(), lasting)


def write_bytes(path: Path, content: bytes, lasting: bool = True) -> None:
    """Writes a file whole or not at all; `lasting` waits until it outlives a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
