"""The process that untrusted code runs in: `python -m bench.sandbox.child PLAN READ WRITE`; raises its own walls."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.sandbox import isolation as walls


def main(plan_file: str, read: str, write: str) -> None:
    """Shuts itself in, then loads what is heavy, then answers until the other side is gone.

    Args:
        plan_file: JSON, as `box` writes it.
        read, write: numbers of the pipes' ends.
    """
    plan = json.loads(Path(plan_file).read_text(encoding="utf-8"))
    own = Path(plan["own"])
    readable, listed, labels = ([Path(one) for one in plan[name]] for name in ("readable", "listed", "labels"))
    proc = Path("/proc/self").resolve()
    try:
        standing = walls.shut_in(own, [*readable, proc], listed, plan["processor"])
    except walls.IsolationError as error:
        sys.stderr.write(f"\n{walls.NO_ISOLATION}{error}\n")
        sys.exit(3)
    from bench.sandbox.server import Server  # torch only now: threads that are there before walls stand outside

    server = Server(int(read), int(write), plan["threads"])
    walls.limit_memory(plan["memory"])
    walls.watch(own, [*readable, proc], labels)
    server.run(Path(plan["plugin"]), standing)


if __name__ == "__main__":
    main(*sys.argv[1:])
