"""The engine for Ray: each job is a task of Ray, which gets its CPUs and GPUs from a cluster or from this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bench.engine.jobs import Ending, Job, JobEngine
from bench.errors import InputError, MissingExtraError
from bench.records.store import Store

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what a job without GPUs sees is left alone
try:
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayError, RayTaskError, TaskCancelledError
except ImportError as error:
    raise MissingExtraError("--engine ray", "ray") from error


@dataclass(frozen=True)
class Ray(JobEngine):
    """Tasks of Ray.

    Attributes:
        address: of a cluster, as for `ray.init`; None starts Ray on this machine.
        gpus_per_job, cpus_per_job: what each job gets.
    """

    address: str | None = None
    gpus_per_job: int = 0
    cpus_per_job: int = 1
    name: ClassVar[str] = "ray"

    def submit(self, jobs: Sequence[Job], store: Store) -> list[Any]:
        """As many of them run at once as there are CPUs and GPUs for."""
        try:
            _reach(self.address)
            if not ray.is_initialized():
                ray.init(self.address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"Ray cannot be reached at {self.address or 'this machine'}: {error}") from error
        function = ray.remote(num_cpus=self.cpus_per_job, num_gpus=self.gpus_per_job, max_retries=0)(_compute)
        return [function.remote(job) for job in jobs]

    def ending(self, handle: Any) -> Ending | None:
        """What Ray says of a job that did not come to its end."""
        ended, _ = ray.wait([handle], timeout=0)
        if not ended:
            return None
        try:
            ray.get(handle)
        except OutOfMemoryError:
            return Ending(
                "killed", "its Ray worker was killed, since the memory of its machine ran out", "out-of-memory"
            )
        except NodeDiedError as error:
            return Ending("lost", str(error))
        except TaskCancelledError:
            return Ending("cancelled", "its Ray task was cancelled")
        except RayTaskError as error:
            return Ending("failed", str(error.cause))
        except RayError as error:
            return Ending("killed", f"its Ray worker ended: {type(error).__name__}")
        return Ending("done")

    def cancel(self, handle: Any) -> None:
        """Kills the job's process."""
        ray.cancel(handle, force=True)


def _reach(address: str | None) -> None:
    """Raises OSError if nothing answers at HOST:PORT, since Ray itself tries for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=30).close()


def _compute(job: Job) -> None:
    job()
