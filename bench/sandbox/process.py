"""Starts the processes that untrusted code runs in, asks them, and ends them when they do not answer."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from bench.core.text import plain
from bench.data.photos import PHOTOGRAPHS, shipped
from bench.errors import RefusedError
from bench.sandbox import wire
from bench.sandbox.isolation import FORBIDDEN, IsolationError

_SYSTEM = (
    "/lib /lib64 /usr/lib /usr/lib64 /usr/local/lib /usr/share/zoneinfo /etc/ld.so.cache /etc/localtime /dev/null "
    "/dev/urandom /proc/cpuinfo /proc/meminfo /proc/stat /proc/sys/vm/overcommit_memory "
    "/sys/devices/system/cpu /sys/devices/system/node"
)
T = TypeVar("T")
_START = 300
"""Seconds until a process must have raised its walls."""


@dataclass(frozen=True)
class Limits:
    """What untrusted code may use.

    Attributes:
        answer: seconds for one answer, of at most a few hundred images; the first one includes loading the code.
        total: seconds for all answers of all its processes together.
        memory: bytes of each process beyond what the libraries take.
    """

    answer: float = 120
    total: float = 4 * 3600
    memory: int = 4 * 2**30


class _ForkServer:
    """The outer side of `bench.sandbox.forkserver`, which has at most one child at a time."""

    def __init__(self) -> None:
        self._busy = False
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and our own module
                [sys.executable, "-I", "-B", "-m", "bench.sandbox.forkserver", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                cwd="/",
                env={"HOME": "/nonexistent", "USER": "nobody", "LOGNAME": "nobody", "LANG": "C.UTF-8", "PATH": ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self.close)

    def claim(self) -> None:
        """Comes before `start`; raises RuntimeError while another child is there."""
        if self._busy:
            raise RuntimeError("Two processes for untrusted code must not live at the same time: close the first one.")
        self._busy = True

    def start(self, plan: Path, files: list[int]) -> None:
        """Starts a child."""
        with suppress(OSError):  # the fork server is gone: nobody will answer
            socket.send_fds(self._control, [str(plan).encode()], files)

    def end(self) -> int:
        """Ends the child, if it still runs; returns its exit code, below 0 for a signal."""
        self._busy = False
        try:
            self._control.send(b".")
            return int(self._control.recv(64))
        except (OSError, ValueError):
            _fork_server.cache_clear()
            self.close()
            return -signal.SIGKILL

    def close(self) -> None:
        """Ends the process and its child."""
        self._control.close()
        self._process.wait()


@cache
def _fork_server() -> _ForkServer:
    return _ForkServer()


class Box:
    """A process behind walls, with the code of one plugin in it. Use it with `with`."""

    def __init__(self, code: Mapping[str, bytes], limits: Limits) -> None:
        """Starts the process and waits until its walls stand.

        Args:
            code: file name -> content; the one that ends in .py is the plugin, others lie beside it.
            limits: what it may use.

        Raises:
            IsolationError: this machine cannot raise the walls.
        """
        self._limits, self._server, self._lock = limits, _fork_server(), threading.Lock()
        self._ended: int | None = None
        self._server.claim()
        self._folder = tempfile.TemporaryDirectory(prefix="bench-box-")
        root = Path(self._folder.name).resolve()
        (root / "code").mkdir()
        for name, content in code.items():
            (root / "code" / name).write_bytes(content)
        (root / "plan.json").write_text(json.dumps(_plan(root, code, limits)), encoding="utf-8")
        self._errors = root / "errors"
        (theirs, ours), (our_end, their_end) = os.pipe(), os.pipe()
        files = [theirs, their_end, os.open(self._errors, os.O_WRONLY | os.O_CREAT, 0o600)]
        self._server.start(root / "plan.json", files)
        for file in files:
            os.close(file)
        self._to, self._from = Connection(ours, readable=False), Connection(our_end, writable=False)
        try:
            hello = self._within(_START, lambda: wire.receive(self._from, wire.LEAST)[0])
            self.walls: list[str] = hello.get("walls", [])
            if not self.walls:
                raise IsolationError(hello.get("lacking", "it has no walls"))
        except BaseException as error:
            self.close()
            if isinstance(error, RefusedError):  # there is no untrusted code in it yet
                raise IsolationError(f"the process for untrusted code does not start: {error.__cause__!r}") from error
            raise

    def ask(
        self, message: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None, seconds: float | None = None
    ) -> wire.Answer:
        """Sends a question and waits for its answer.

        Args:
            message: what to do.
            tensors: with what.
            seconds: to answer in, where less is left than the limits allow.

        Raises:
            RefusedError: the code cannot be loaded, gives no answer, or did what it must not.
        """

        def exchange() -> wire.Answer:
            sent = wire.send(self._to, dict(message), dict(tensors or {}))
            return wire.receive(self._from, wire.LEAST + 2 * sent)

        answer, numbers = self._within(self._limits.answer if seconds is None else seconds, exchange)
        if "error" in answer:
            raise RefusedError(f"the defense failed: {plain(str(answer['error']))[:500]}")
        return answer, numbers

    def _within(self, seconds: float, work: Callable[[], T]) -> T:
        """What `work` returns, if the process answers in time."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._end()

        watchdog = threading.Timer(seconds, end)
        watchdog.start()
        try:
            return work()
        except Exception as error:  # whatever it sends in place of an answer
            cause = f"gave no answer within {seconds:.3g} seconds" if late.is_set() else self._cause(error)
            raise RefusedError(f"the defense {cause}") from error
        finally:
            watchdog.cancel()

    def _cause(self, error: Exception) -> str:
        """Why there is no answer, from what the process said last and how it ended."""
        code = self._end()
        lines = self._errors.read_bytes()[-20_000:].decode(errors="replace").splitlines()
        for line in lines:
            if line.startswith(FORBIDDEN):
                return plain(line.removeprefix(FORBIDDEN))[:500]
        alive = not isinstance(error, EOFError | ConnectionError) and "end of file" not in str(error)
        if alive:
            return f"sent no answer that can be read ({type(error).__name__})"
        if code in (-signal.SIGXCPU, -signal.SIGKILL):
            return "used up its memory or its processor time"
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended its process with exit code {code}"
        last = next((plain(line) for line in reversed(lines) if line.strip()), "")
        return how + (f": {last[:500]}" if last else "")

    def _end(self) -> int:
        """Ends the process; returns its exit code, below 0 for a signal."""
        with self._lock:
            if self._ended is None:
                self._ended = self._server.end()
            return self._ended

    def close(self) -> None:
        """Ends the process and deletes its folder."""
        self._end()
        for pipe in (self._to, self._from):
            with suppress(OSError):
                pipe.close()
        self._folder.cleanup()

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _plan(root: Path, code: Mapping[str, bytes], limits: Limits) -> dict[str, Any]:
    """What the process needs to know before it reads anything else."""
    (plugin,) = [name for name in code if name.endswith(".py")]
    readable, listed, labels = _places()
    return {
        "plugin": str(root / "code" / plugin),
        "readable": [*readable, str(root / "code")],
        "listed": listed,
        "labels": labels,
        "threads": torch.get_num_threads(),
        "processor": int(limits.total),
        "memory": limits.memory,
    }


@cache
def _places() -> tuple[list[str], list[str], list[str]]:
    """What may be read, which folders may be listed, and the files that labels could be made from."""
    sources = [*PHOTOGRAPHS.values(), ("sklearn", "datasets/data/digits.csv.gz")]
    beside = {path for source in sources for path in shipped(*source).resolve().parent.iterdir()}
    hidden = {path for path in beside if path.is_file() and path.suffix not in (".py", ".pyi")}  # some are near copies
    roots = _roots()
    readable = [str(inner) for path in roots for inner in _without(path, hidden)]
    return readable, [str(path) for path in roots], [str(path) for path in sorted(hidden)]


def _roots() -> list[Path]:
    """The interpreter's and the packages' folders, those of this project, and a few files of the system."""
    paths = {Path(name) for name in _SYSTEM.split()}
    paths |= {Path(prefix) / name for prefix in (sys.prefix, sys.base_prefix) for name in ("lib", "lib64")}
    named = sysconfig.get_paths()
    paths |= {Path(named[name]) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths |= {Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    for package in ("bench", "bench.attacks", "bench.defenses"):
        paths |= {Path(folder) for folder in import_module(package).__path__}
    return sorted({path.resolve() for path in paths if path.exists()})


def _without(path: Path, hidden: set[Path]) -> Iterator[Path]:
    """The largest files and folders below `path` that hold nothing hidden."""
    if path in hidden:
        return
    if not any(one.is_relative_to(path) for one in hidden):
        yield path
        return
    for inner in sorted(path.iterdir()):
        yield from _without(inner, hidden)
