"""The log of a run: what began when, how long it took, and every message, for those who look for a fault."""

from __future__ import annotations

import os
import platform
import sys
from datetime import datetime
from pathlib import Path

from bench.core.text import plain
from bench.engine.plan import Plan, Task
from bench.records.schema import Latency, Outcome


class RunLog:
    """A file with a line for each event, written at once; without a file it does nothing."""

    def __init__(self, folder: Path | None) -> None:
        """A new file in this folder, if there is one."""
        self.path: Path | None = None
        self._doing: dict[Task, str] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = folder / f"{datetime.now():%Y-%m-%d-%H%M%S}-{os.getpid()}.log"

    def begin(self, plan: Plan) -> None:
        """The command, the machine, and what there is to do."""
        self.write(f"bench {' '.join(sys.argv[1:])}")
        self.write(f"Python {platform.python_version()} on {platform.platform()}, process {os.getpid()}")
        for lines in plan.remarks:
            for line in lines:
                self.write(line)
        self.write(f"{len(plan.done)} cells are done, {len(plan.tasks)} tasks are to do")

    def progress(self, task: Task, share: float, doing: str) -> None:
        """What a task is doing, whenever that changes."""
        if self._doing.get(task) != doing:
            self._doing[task] = doing
            self.write(f"{task}: {doing} ({100 * share:.0f} %)")

    def end(self, task: Task, record: Outcome | Latency) -> None:
        """The status of a task, its reason, its times and its warnings."""
        self.write(f"{task}: {record.status}{f': {record.reason}' if record.reason else ''}")
        if isinstance(record, Outcome):
            if record.seconds:
                times = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.seconds.items())
                self.write(f"{task}: took {times}")
            for warning in record.warnings:
                self.write(f"{task}: {warning}")

    def write(self, line: str) -> None:
        """A line with the time."""
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now():%Y-%m-%d %H:%M:%S} {plain(line)}\n")
