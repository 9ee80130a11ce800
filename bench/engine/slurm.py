"""The engine for Slurm, through submitit: each job is an element of an array."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from bench.engine.jobs import Ending, Job, JobEngine
from bench.errors import InputError, MissingExtraError
from bench.records.schema import Status
from bench.records.store import Store

try:
    import submitit
except ImportError as error:
    raise MissingExtraError("--engine slurm", "slurm") from error

_STATUSES: dict[str, Status] = {"TIMEOUT": "timeout", "DEADLINE": "timeout", "OUT_OF_MEMORY": "out-of-memory"}
_LOST = ("NODE_FAIL", "BOOT_FAIL", "PREEMPTED")


@dataclass(frozen=True)
class Slurm(JobEngine):
    """Jobs of Slurm.

    Attributes:
        minutes: the time limit of a job. A job that reaches it, or that is preempted, is submitted again and goes on.
        jobs: how many run at once, at most.
        gpus_per_node, cpus_per_task, memory_gb: what each job gets; None leaves it to Slurm.
        partition, account, qos: as for `sbatch`; None leaves it to Slurm.
        cluster: `local` runs the jobs as processes of this machine, to try it out.
    """

    minutes: int = 240
    jobs: int = 16
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    memory_gb: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    name: ClassVar[str] = "slurm"

    def submit(self, jobs: Sequence[Job], store: Store) -> list[Any]:
        """One array; what the jobs print is in the folder `.jobs` of the results."""
        try:
            executor = submitit.AutoExecutor(store.folder.absolute() / ".jobs", cluster=self.cluster)
        except RuntimeError as error:
            raise InputError("--engine slurm needs Slurm, but this machine has no srun. Use --engine local.") from error
        parameters = {
            "name": "bench",
            "timeout_min": self.minutes,
            "gpus_per_node": self.gpus_per_node,
            "cpus_per_task": self.cpus_per_task,
            "mem_gb": self.memory_gb,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_array_parallelism": self.jobs,
        }
        executor.update_parameters(**{name: value for name, value in parameters.items() if value is not None})
        with executor.batch():
            handles = [executor.submit(job) for job in jobs]
        return handles

    def ending(self, handle: Any) -> Ending | None:
        """What `sacct` says of a job that left no result."""
        preempted = handle.state == "PREEMPTED"  # which submitit takes for a job that will go on
        if not preempted and not handle.done():
            return None
        problem = None if preempted else handle.exception()
        if not preempted and problem is None:
            return Ending("done")
        state = handle.state.split()[0]
        reason = f"its Slurm job {handle.job_id} ended as {state}"
        if state in _LOST:
            return Ending("lost", reason)
        if state == "CANCELLED":
            return Ending("cancelled", reason)
        if isinstance(problem, submitit.core.utils.FailedJobError):
            if "UncompletedJobError" not in str(problem):
                return Ending("failed", str(problem))
            return Ending("killed", f"its Slurm job {handle.job_id} reached its time limit too often", "timeout")
        return Ending("killed", reason, _STATUSES.get(state, "error"))

    def cancel(self, handle: Any) -> None:
        """`scancel`, without complaint about a job that has ended."""
        handle.cancel(check=False)
