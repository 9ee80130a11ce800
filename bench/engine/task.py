"""One task, computed: a record in any case, whatever the plugins do."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from torch import Tensor

from bench.contracts import NotApplicableError
from bench.core.text import plain
from bench.engine.inputs import machine_name
from bench.engine.interference import InterferenceError
from bench.engine.judge import CertificateError
from bench.engine.latency import measure_latency
from bench.engine.pictures import patch_png
from bench.engine.plan import CellTask, LatencyTask, Task
from bench.engine.provenance import describe_attack
from bench.engine.run import run_cell
from bench.engine.testbed import testbed_of
from bench.memory import out_of_memory
from bench.plugins.registry import make_attack
from bench.records.schema import Latency, Outcome, PluginRecord, Status

BROKEN = "CERTIFICATE BROKEN"
"""How the reason of a record begins whose certificate an attack refuted."""

LONGEST_REASON = 500
"""In characters."""


class UserInterrupt(KeyboardInterrupt):
    """Ctrl-C, as opposed to a KeyboardInterrupt that a plugin raises."""


@dataclass(frozen=True)
class Done:
    """The result of a task.

    Attributes:
        task: what was computed.
        record: its record.
        picture: for universal attacks, what was learned (PNG).
        adversarial: where images and model are in memory, the attacked images, shape (n, c, h, w).
        spoiled: whether the process may no longer be what it was: the next task needs a new one.
    """

    task: Task
    record: Outcome | Latency
    picture: bytes | None = None
    adversarial: Tensor | None = None
    spoiled: bool = False


def compute_task(task: Task, progress: Callable[[float, str], None], ready: Callable[[], None]) -> Done:
    """Computes a task; whatever is raised becomes a record that says so.

    Args:
        task: what to compute.
        progress: called with the fraction done and what is being done.
        ready: called when images and model are loaded, which is where the task's time begins.

    Raises:
        UserInterrupt: the user wants to stop.
    """
    threads = threading.enumerate()
    try:
        testbed_of(task.setting)
        ready()
        if isinstance(task, LatencyTask):
            record: Outcome | Latency = measure_latency(task, progress)
            picture = adversarial = None
        else:
            computed = run_cell(task.cell, task.setting, progress)
            record, picture = computed.outcome, patch_png(computed)
            adversarial = computed.attacked.adversarial if task.setting.memory else None
        json.dumps(asdict(record), ensure_ascii=False).encode()  # titles and parameters are whatever a plugin says
        return Done(task, record, picture, adversarial, spoiled=_has_left_a_thread(threads))
    except UserInterrupt:
        raise
    except NotApplicableError as error:
        return failure(task, "not-applicable", plain(str(error)))
    except CertificateError as error:
        return failure(task, "error", f"{BROKEN}: {error}")
    except InterferenceError as error:
        testbed_of.cache_clear()
        return failure(task, "error", str(error), spoiled=True)
    except MemoryError as error:
        return failure(task, "out-of-memory", error_text(error))
    except Exception as error:
        return failure(task, "out-of-memory" if out_of_memory(error) else "error", error_text(error))
    except BaseException as error:  # SystemExit and its like end a process, which is not for a plugin to do
        return failure(task, "error", f"a plugin tried to end the run: {error_text(error)}", spoiled=True)


def _has_left_a_thread(before: list[threading.Thread]) -> bool:
    """Whether a plugin's thread lives on; the one that watches progress bars of libraries does no harm."""
    left = [thread for thread in threading.enumerate() if thread not in before]
    return any(not type(thread).__module__.startswith("tqdm.") for thread in left)


def failure(task: Task, status: Status, reason: str, spoiled: bool = False) -> Done:
    """The record of a task without numbers."""
    reason = plain(reason)
    reason = reason if len(reason) <= LONGEST_REASON else f"{reason[:LONGEST_REASON]}…"
    date = datetime.now(UTC).isoformat(timespec="seconds")
    inputs = dict(task.inputs)
    if isinstance(task, LatencyTask):
        machine = machine_name(task.setting.device)
        latency = replace(task.place, machine=machine, fingerprints=inputs, date=date, status=status, reason=reason)
        return Done(task, latency, spoiled=spoiled)
    outcome = Outcome(task.cell, status, reason, attack=_attack(task), fingerprints=inputs, date=date)
    return Done(task, outcome, spoiled=spoiled)


def _attack(task: CellTask) -> PluginRecord | None:
    """The attack, so that its board can name it although it has no number; None if it cannot even be made."""
    try:
        return describe_attack(task.cell.attack, make_attack(task.setting.local(task.cell.attack), task.cell.effort))
    except Exception:
        return None


def error_text(error: BaseException) -> str:
    """The error with the place that raised it, by file name: records name no folders of a machine."""
    try:
        message = str(error)[: 2 * LONGEST_REASON]
    except Exception:  # a plugin's own error may fail, too
        message = "(its message cannot be read)"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {message}{where}"
