"""Engines: this machine, Slurm and Ray give the same records, and what goes wrong in a job costs that job's cell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bench.engine.engines import Engine, Local, devices_of
from bench.engine.jobs import Ending, Job
from bench.engine.plan import CellTask, Plan, plan
from bench.engine.setting import Setting
from bench.engine.task import Done
from bench.engine.workers import _short_spinning, load_plugins
from bench.errors import InputError
from bench.plugins import registry
from bench.records.schema import Outcome
from bench.records.store import Store

PLUGINS = Path(__file__).parent.parent / "plugin"
COUNTED, FAULTY = PLUGINS / "counted.py", PLUGINS / "faulty.py"
SETTING = Setting("photos:train=2,test=2,crop=16", "photos-cnn", images=6)
ATTACKS = ",".join(f"counted:eps={eps}" for eps in (0.02, 0.05, 0.1))
RAY, SUBMITIT = "needs the extra ray, which dev brings", "needs the extra slurm, which dev brings"
UNSTEADY = ("seconds", "date", "training", "checksum")


@pytest.fixture(autouse=True)
def _loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_from_files", dict(registry._from_files))
    load_plugins([COUNTED, FAULTY])


def planned(folder: Path, attacks: str = ATTACKS, defenses: str = "none,shifted", setting: Setting = SETTING) -> Plan:
    """The cells of attacks and defenses, without timings."""
    result = plan(setting, attacks, defenses, ("oblivious", "adaptive"), [0], "quick", Store(folder), elsewhere=True)
    return replace(result, tasks=[task for task in result.tasks if isinstance(task, CellTask)])


def computed(engine: Engine, tasks: Plan, folder: Path, timeout: float | None = None) -> list[Done]:
    return [*engine.run(tasks.tasks, Store(folder), [COUNTED, FAULTY], timeout, lambda task, share, doing: None)]


def records(folder: Path) -> dict[str, Any]:
    """The records of cells, without times."""
    trees = {path.name: json.loads(path.read_text()) for path in sorted((folder / "records").rglob("*.json"))}
    cells = {name: tree for name, tree in trees.items() if not name.startswith("latency-")}
    return {name: {key: tree[key] for key in tree if key not in UNSTEADY} for name, tree in cells.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The records of the 12 cells, computed in this process."""
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(folder / "cache"))
        patch.setattr(registry, "_from_files", dict(registry._from_files))
        load_plugins([COUNTED])
        computed(Local(0), planned(folder / "results"), folder / "results")
    return records(folder / "results")


class TestLocal:
    """Several workers and devices on one machine."""

    def test_two_devices_have_a_worker_each_and_give_the_records_of_one_process(
        self, expected: dict[str, Any], tmp_path: Path
    ) -> None:
        computed(Local(1, ("cpu", "cpu:0")), planned(tmp_path), tmp_path)
        assert records(tmp_path) == expected
        log = (tmp_path / "log").read_text().splitlines()
        assert len({line.split()[0] for line in log}) == 2, "one worker did all the work"
        crafted = [line.partition(" ")[2] for line in log]
        assert len(crafted) == len(set(crafted)), "images were crafted twice"

    def test_a_device_that_does_not_exist_fails_its_cell_and_says_so(self, tmp_path: Path) -> None:
        tasks = planned(tmp_path, "counted", "none")
        done = computed(Local(1, ("cuda:77",)), tasks, tmp_path)
        assert [one.record.status for one in done] == ["error", "error"]
        assert [one.task for one in done] == tasks.tasks, "a task comes back as it was planned"

    def test_several_devices_in_one_process_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="Several devices need a process each"):
            Local(0, ("cpu", "cpu:0")).run([], Store(tmp_path), [], None, lambda task, share, doing: None)

    def test_cuda_is_every_gpu_and_others_stand_for_themselves(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
        assert devices_of("cuda") == ("cuda:0", "cuda:1", "cuda:2")
        assert devices_of("cuda:1, cuda:2") == ("cuda:1", "cuda:2")
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        assert devices_of("cuda") == ("cuda",)

    def test_workers_spin_shortly_unless_the_user_says_how_to_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
        monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
        with _short_spinning():
            assert os.environ["GOMP_SPINCOUNT"] == "10000"
        assert "GOMP_SPINCOUNT" not in os.environ
        monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
        with _short_spinning():
            assert "GOMP_SPINCOUNT" not in os.environ


FAULTS = {
    "faulty:way=kill": ("error", "killed"),
    "faulty:way=hang": ("timeout", "--timeout"),
    "faulty:way=memory": ("out-of-memory", "MemoryError"),
    "faulty:way=kill-job": ("error", ""),
    "counted:eps=0.02": ("ok", ""),
}


def check_faults(engine: Engine, folder: Path, killed_job: str) -> None:
    """A status and a reason for each fault, and a number for the cell beside them."""
    setting = replace(SETTING, images=2)
    tasks = planned(folder, ",".join(FAULTS), "none", setting)
    tasks.tasks[:] = [task for task in tasks.tasks if isinstance(task, CellTask) and task.cell.tier == "oblivious"]
    done = computed(engine, tasks, folder, timeout=15)
    assert len(done) == len(FAULTS)
    for record in (one.record for one in done):
        assert isinstance(record, Outcome)
        status, reason = FAULTS[record.cell.attack]
        assert record.status == status, record.reason
        assert (killed_job if record.cell.attack == "faulty:way=kill-job" else reason) in record.reason
    assert {one["status"] for one in records(folder).values()} == {"error", "timeout", "out-of-memory", "ok"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a cluster of two nodes with a GPU each, neither of which is real."""
    pytest.importorskip("ray", reason=RAY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=small)
        cluster.add_node(**small)
        yield cluster.address
        ray.shutdown()
        cluster.shutdown()


class TestRay:
    """A cluster of two nodes."""

    def test_twelve_cells_on_two_nodes_give_the_records_of_this_machine(
        self, address: str, expected: dict[str, Any], tmp_path: Path
    ) -> None:
        from bench.engine.on_ray import Ray

        done = computed(Ray(address=address, gpus_per_job=1, cells_per_job=4), planned(tmp_path), tmp_path)
        assert len(done) == 12
        assert records(tmp_path) == expected
        crafted = [line.partition(" ")[2] for line in (tmp_path / "log").read_text().splitlines()]
        assert sorted(crafted) == sorted(set(crafted)), "images were crafted twice"

    def test_a_job_that_dies_hangs_or_runs_out_of_memory_costs_its_own_cell(self, address: str, tmp_path: Path) -> None:
        from bench.engine.on_ray import Ray

        check_faults(Ray(address=address, gpus_per_job=1), tmp_path, "its Ray worker ended")

    def test_a_command_that_is_killed_goes_on_where_it_was(
        self, address: str, expected: dict[str, Any], tmp_path: Path
    ) -> None:
        words = ["run", "--plugin", str(COUNTED), "--dataset", SETTING.dataset, "--images", "6", "--effort", "quick"]
        words += ["--attack", ATTACKS, "--defense", "none,shifted", "--engine", "ray", "--address", address]
        command = [sys.executable, "-m", "bench", *words, "--gpus-per-node", "1"]
        with (tmp_path / "out").open("w") as out:
            first = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True)
            while not (tmp_path / "results").exists() or len(records(tmp_path / "results")) < 3:
                assert first.poll() is None, (tmp_path / "out").read_text()
                time.sleep(0.05)
            os.killpg(first.pid, signal.SIGKILL)
            first.wait()
            before = {path: path.read_bytes() for path in (tmp_path / "results" / "records").rglob("*.json")}
            subprocess.run(command, cwd=tmp_path, stdout=out, stderr=out, check=True)
        assert records(tmp_path / "results") == expected
        assert all(path.read_bytes() == content for path, content in before.items() if b'"ok"' in content)

    def test_a_cluster_that_is_not_there_is_an_error_of_one_line(self, tmp_path: Path) -> None:
        pytest.importorskip("ray", reason=RAY)
        from bench.engine.on_ray import Ray

        with pytest.raises(InputError, match=r"Ray cannot be reached at 127.0.0.1:1"):
            computed(Ray(address="127.0.0.1:1"), planned(tmp_path), tmp_path)


class TestSlurm:
    """submitit's local executor, and submitit with a Slurm that is not real."""

    def test_twelve_cells_give_the_records_of_this_machine(self, expected: dict[str, Any], tmp_path: Path) -> None:
        slurm = pytest.importorskip("bench.engine.slurm", reason=SUBMITIT)
        done = computed(slurm.Slurm(cluster="local", cells_per_job=4), planned(tmp_path), tmp_path)
        assert len(done) == 12
        assert records(tmp_path) == expected

    def test_a_job_that_dies_hangs_or_runs_out_of_memory_costs_its_own_cell(self, tmp_path: Path) -> None:
        slurm = pytest.importorskip("bench.engine.slurm", reason=SUBMITIT)
        check_faults(slurm.Slurm(cluster="local"), tmp_path, "its Slurm job")

    def test_the_options_reach_sbatch_and_the_array_is_capped(self, tmp_path: Path) -> None:
        slurm = pytest.importorskip("bench.engine.slurm", reason=SUBMITIT)
        from submitit.slurm.test_slurm import mocked_slurm

        with mocked_slurm():
            options = {"partition": "gpu", "account": "us", "qos": "low", "minutes": 90, "memory_gb": 8}
            engine = slurm.Slurm(jobs=3, gpus_per_node=2, cpus_per_task=4, **options)
            handles = engine.submit([job(tmp_path)] * 5, Store(tmp_path))
            assert [handle.job_id for handle in handles] == [f"12_{number}" for number in range(5)]
            text = (tmp_path / ".jobs" / "12_submission.sh").read_text()
        for line in ("partition=gpu", "account=us", "qos=low", "time=90", "mem=8GB", "gpus-per-node=2"):
            assert f"#SBATCH --{line}\n" in text
        assert "#SBATCH --cpus-per-task=4\n" in text
        assert "#SBATCH --array=0-4%3\n" in text

    @pytest.mark.parametrize(
        ("state", "how", "status"),
        [
            ("TIMEOUT", "killed", "timeout"),
            ("OUT_OF_MEMORY", "killed", "out-of-memory"),
            ("FAILED", "killed", "error"),
            ("NODE_FAIL", "lost", "error"),
            ("PREEMPTED", "lost", "error"),
            ("CANCELLED by 1000", "cancelled", "error"),
        ],
    )
    def test_slurm_is_asked_why_a_job_ended(self, state: str, how: str, status: str, tmp_path: Path) -> None:
        slurm = pytest.importorskip("bench.engine.slurm", reason=SUBMITIT)
        from submitit.slurm.test_slurm import mocked_slurm

        with mocked_slurm() as mock:
            engine = slurm.Slurm()
            (handle,) = engine.submit([job(tmp_path)], Store(tmp_path))
            assert engine.ending(handle) is None
            mock.set_job_state(handle.job_id, state)
            handle.watcher.update()
            handle._results_timeout_s = 0
            handle.paths.stdout.write_text("")
            ending = engine.ending(handle)
        assert ending is not None
        assert (ending.how, ending.status) == (how, status)
        assert state.split()[0] in ending.reason

    def test_without_slurm_the_engine_says_so(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        slurm = pytest.importorskip("bench.engine.slurm", reason=SUBMITIT)
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match="no srun"):
            slurm.Slurm().submit([job(tmp_path)], Store(tmp_path))

    def test_a_job_that_is_preempted_submits_itself_again(self, tmp_path: Path) -> None:
        pytest.importorskip("submitit", reason=SUBMITIT)
        again = job(tmp_path).checkpoint()
        assert again.function == job(tmp_path)


def job(folder: Path) -> Job:
    return Job((), 1, folder, folder / "cache", folder, (), None)


@dataclass(frozen=True)
class Scripted:
    """An engine whose jobs end as a script says; what is `done` is computed here, at once."""

    endings: list[Ending]
    submitted: list[Job]

    def run(self, tasks: Plan, folder: Path) -> list[Done]:
        from bench.engine.jobs import JobEngine

        script = self

        @dataclass(frozen=True)
        class _Engine(JobEngine):
            def submit(self, jobs: Any, store: Store) -> list[Ending]:
                script.submitted.extend(jobs)
                return [self._do(one) for one in jobs]

            def _do(self, one: Job) -> Ending:
                ending = script.endings.pop(0) if script.endings else Ending("done")
                if ending.how == "done":
                    one()
                return ending

            def ending(self, handle: Ending) -> Ending | None:
                return handle

            def cancel(self, handle: Ending) -> None:
                raise AssertionError("no job is left")

        return computed(_Engine(), tasks, folder)


class TestJobs:
    """What becomes of the cells of a job that did not come to its end."""

    def test_the_cells_of_a_lost_job_are_submitted_again(self, tmp_path: Path) -> None:
        script = Scripted([Ending("lost", "NODE_FAIL")] * 3, [])
        done = script.run(planned(tmp_path, "counted", "none"), tmp_path)
        assert [one.record.status for one in done] == ["ok", "ok"]
        assert len(script.submitted) == 4

    def test_a_cell_that_kills_two_jobs_is_named_and_the_others_are_computed(self, tmp_path: Path) -> None:
        killed = Ending("killed", "its job ended as OUT_OF_MEMORY", "out-of-memory")
        script = Scripted([killed, killed], [])
        tasks = planned(tmp_path, "counted", "none,shifted")
        done = script.run(tasks, tmp_path)
        statuses = {one.task: one.record.status for one in done}
        assert list(statuses.values()).count("out-of-memory") == 1
        assert list(statuses.values()).count("ok") == 3
        assert [len(one.tasks) for one in script.submitted] == [4, 1, 3], "it was alone in its second job"
        (failed,) = [one.record for one in done if one.record.status != "ok"]
        assert failed.reason == "its job ended as OUT_OF_MEMORY"

    def test_a_cancelled_job_is_not_submitted_again(self, tmp_path: Path) -> None:
        script = Scripted([Ending("cancelled", "CANCELLED")], [])
        done = script.run(planned(tmp_path, "counted", "none"), tmp_path)
        assert [one.record.status for one in done] == ["error", "error"]
        assert len(script.submitted) == 1

    def test_jobs_whose_records_never_come_stop_the_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("bench.engine.jobs._PATIENCE", 0.0)
        monkeypatch.setattr(Job, "__call__", lambda job: None)
        with pytest.raises(InputError, match=r"left no record of counted × none.*see the same folder"):
            Scripted([], []).run(planned(tmp_path, "counted", "none"), tmp_path)

    def test_a_job_that_cannot_compute_anything_stops_the_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="No module named bench"):
            Scripted([Ending("failed", "No module named bench")], []).run(
                planned(tmp_path, "counted", "none"), tmp_path
            )
