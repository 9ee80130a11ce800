"""Starts the process that untrusted code runs in, asks it, and ends it when it does not answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from bench.data.photos import PHOTOGRAPHS, shipped
from bench.errors import RefusedError
from bench.sandbox import wire
from bench.sandbox.isolation import FORBIDDEN, NO_ISOLATION, IsolationError

_SYSTEM = (
    "/lib /lib64 /usr/lib /usr/lib64 /usr/local/lib /usr/share/zoneinfo /etc/ld.so.cache /etc/localtime /dev/null "
    "/dev/urandom /dev/zero /proc/cpuinfo /proc/meminfo /proc/stat /proc/sys/vm/overcommit_memory "
    "/sys/devices/system/cpu /sys/devices/system/node"
)


@dataclass(frozen=True)
class Limits:
    """What a process may use.

    Attributes:
        start: seconds until it has loaded the code.
        answer: seconds for one answer, of at most some hundred images.
        processor: seconds of processor time in all.
        memory: bytes beyond what the libraries take.
    """

    start: float = 120
    answer: float = 120
    processor: int = 4 * 3600
    memory: int = 4 * 2**30


class Box:
    """A process behind walls, with the code of one plugin in it. Use it with `with`."""

    def __init__(self, code: Mapping[str, bytes], limits: Limits) -> None:
        """Starts the process and does not wait for it.

        Args:
            code: file name -> content; the one that ends in .py is the plugin, others lie beside it.
            limits: what it may use.
        """
        self.limits = limits
        self._folder = tempfile.TemporaryDirectory(prefix="bench-box-")
        root = Path(self._folder.name).resolve()
        self._told = root / "told"
        for name in ("own", "code"):
            (root / name).mkdir()
        for name, content in code.items():
            (root / "code" / name).write_bytes(content)
        self._start(root, _plan(root, code, limits))
        self.walls: list[str] = []

    def _start(self, root: Path, plan: Mapping[str, Any]) -> None:
        (root / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
        (theirs, ours), (our_end, their_end) = os.pipe(), os.pipe()
        command = [sys.executable, "-I", "-B", "-m", "bench.sandbox.child", str(root / "plan.json")]
        home = str(root / "own")
        environment = {name: home for name in ("HOME", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")}
        environment |= {"USER": "nobody", "LOGNAME": "nobody", "LANG": "C.UTF-8", "PATH": ""}
        with self._told.open("wb") as told:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and our own module
                [*command, str(theirs), str(their_end)],
                pass_fds=(theirs, their_end),
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=told,
                start_new_session=True,
            )
        os.close(theirs)
        os.close(their_end)
        self._to, self._from = Connection(ours, readable=False), Connection(our_end, writable=False)

    def ask(
        self, message: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Sends a request and waits for its answer.

        Raises:
            IsolationError: this machine cannot raise the walls.
            RefusedError: the code cannot be loaded, gives no answer, or did what it must not.
        """
        if not self.walls:
            self.walls = [str(one) for one in self._exchange({}, {}, self.limits.start)[0]["walls"]]
        return self._exchange(dict(message), dict(tensors or {}), self.limits.answer)

    def _exchange(
        self, message: dict[str, Any], tensors: dict[str, Tensor], seconds: float
    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        watchdog = threading.Timer(seconds, end)
        watchdog.start()
        try:
            wire.send(self._to, message, tensors)
            answer, numbers = wire.receive(self._from)
        except Exception as error:  # whatever it sends in place of an answer
            self._process.kill()
            code = self._process.wait()
            if late.is_set():
                raise RefusedError(f"the defense gave no answer within {seconds:g} seconds") from error
            raise self._cause(code, error) from error
        finally:
            watchdog.cancel()
        if "error" in answer:
            raise RefusedError(f"the defense failed: {str(answer['error'])[:500]}")
        return answer, numbers

    def _cause(self, code: int, error: Exception) -> Exception:
        """Why the process ended, from what it said last and how it ended."""
        lines = self._told.read_bytes()[-20_000:].decode(errors="replace").splitlines()
        for line in lines:
            if line.startswith(NO_ISOLATION):
                return IsolationError(line.removeprefix(NO_ISOLATION))
            if line.startswith(FORBIDDEN):
                return RefusedError(f"the defense {line.removeprefix(FORBIDDEN)}")
        if code in (-signal.SIGXCPU, -signal.SIGKILL) and isinstance(error, EOFError):
            return RefusedError("the defense used up its memory or its processor time")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return RefusedError(f"the defense's process ended ({code}; {type(error).__name__}): {last[:500]}")

    def close(self) -> None:
        """Ends the process and deletes its folder."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._to, self._from):
            with suppress(OSError):
                pipe.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _plan(root: Path, code: Mapping[str, bytes], limits: Limits) -> dict[str, Any]:
    """What the process needs to know before it reads anything else."""
    hidden = {shipped(*where).resolve() for where in PHOTOGRAPHS.values()}
    hidden |= {shipped("sklearn", "datasets/data/digits.csv.gz").resolve()}
    roots = _roots()
    (plugin,) = [name for name in code if name.endswith(".py")]
    return {
        "plugin": str(root / "code" / plugin),
        "own": str(root / "own"),
        "readable": [str(one) for path in roots for one in _without(path, hidden)] + [str(root / "code")],
        "listed": [str(one) for one in roots],
        "labels": [str(one) for one in sorted(hidden)],
        "threads": torch.get_num_threads(),
        **asdict(limits),
    }


def _roots() -> list[Path]:
    """The interpreter's and the packages' folders, those of this project, and a few files of the system."""
    found = {Path(one) for one in _SYSTEM.split()}
    found |= {Path(prefix) / name for prefix in (sys.prefix, sys.base_prefix) for name in ("lib", "lib64")}
    named = sysconfig.get_paths()
    found |= {Path(named[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    for package in ("bench", "bench.attacks", "bench.defenses"):
        found |= {Path(one) for one in import_module(package).__path__}
    return sorted({one.resolve() for one in found if one.exists()})


def _without(path: Path, hidden: set[Path]) -> Iterator[Path]:
    """The largest files and folders below `path` that hold nothing hidden."""
    if path in hidden:
        return
    if not any(one.is_relative_to(path) for one in hidden):
        yield path
        return
    for inner in sorted(path.iterdir()):
        yield from _without(inner, hidden)
