"""`python -m bench.sandbox.forkserver SOCKET`: starts the processes that untrusted code runs in, one at a time.

Loading torch takes seconds, a fork milliseconds. This process loads it once and runs nothing else; each child raises
its walls before it sees any untrusted code. No second child starts while one is alive, so that two never whisper.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path

from bench.plugins.registry import addresses
from bench.sandbox import isolation, wire
from bench.sandbox.server import Server


def serve(control: socket.socket) -> None:
    """For each plan: starts a child, ends it when the other side says so or is gone, and reports its exit code.

    Args:
        control: gives the path of a plan with the child's end of two pipes and a file for its standard error; then one
            byte, when the child shall end.
    """
    addresses("defense")  # read here once, not in each child
    while True:
        message, files, _, _ = socket.recv_fds(control, 4096, 3)
        if not message:
            return
        child = os.fork()
        if child == 0:
            control.close()
            _child(Path(message.decode()), *files)
        for file in files:
            os.close(file)
        ended = os.pidfd_open(child)
        select.select([control.fileno(), ended], [], [])
        os.close(ended)
        os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not control.recv(1):
            return
        control.send(str(code).encode())


def _child(plan_file: Path, read: int, write: int, errors: int) -> None:
    """Raises the walls, says so, then serves until the other side is gone; never returns."""
    try:
        os.dup2(errors, 2)
        os.close(errors)
        questions, answers = Connection(read, writable=False), Connection(write, readable=False)
        plan = json.loads(plan_file.read_text(encoding="utf-8"))
        code = str(Path(plan["plugin"]).parent)
        os.environ |= dict.fromkeys(("HOME", "TMPDIR", "TORCHINDUCTOR_CACHE_DIR"), code)
        tempfile.tempdir = code  # libraries want these to exist, though nothing can be written there
        readable, listed, labels = ([Path(path) for path in plan[name]] for name in ("readable", "listed", "labels"))
        readable.append(Path("/proc/self").resolve())
        try:
            walls = isolation.shut_in(readable, listed, plan["processor"], plan["memory"])
        except isolation.IsolationError as error:
            wire.send(answers, {"lacking": str(error)})
            return
        isolation.watch(readable, labels)
        wire.send(answers, {"walls": walls})
        Server(questions, answers, Path(plan["plugin"]), plan["threads"]).run()
    finally:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
