"""Kills commands at random moments and checks that nothing is lost, half-written or different afterwards.

    python tools/kill_test.py --kills 200

Each of several commands runs once undisturbed. Then it runs again and again in a folder of its own, and SIGKILL hits
its process group, its parent process or one of its workers at a random moment. After each kill every file must be
readable and every finished record unchanged; the files of a run that ends must be those of the undisturbed run.
Needs Linux.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

CHILD = "BENCH_KILL_TEST"
if CHILD in os.environ:  # this process is the bench or one of its workers: it saves its state far more often
    from bench.core import checkpoints

    checkpoints.SECONDS = 0.2

DATA = ["--dataset", "photos:train=10,test=4,crop=16"]
PLUGIN = Path(__file__).parent.parent / "tests" / "plugin" / "acme_blur.py"
SMALL = [*DATA, "--images", "20", "--effort", "quick"]
COMMANDS = {
    "run": ["run", "--attack", "fgsm,patch:steps=10", "--defense", "jpeg", "--workers", "2", *SMALL],
    "train": ["train", "--defense", "retrained:epochs=12,autoencoder:epochs=6", *DATA],
    "curve": ["curve", "--attack", "ifgsm:steps=10", "--over", "eps=0.01,0.03,0.1", *SMALL],
    "report": ["report"],
    "submit": ["submit", str(PLUGIN), "--benchmark", "smoke"],
}
VICTIMS = ("group", "parent", "worker")
UNSTEADY = {"date", "seconds", "training", "checksum"}
"""Parts of a record that differ from run to run."""


class Folder:
    """Where one command runs, with a cache of its own."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self.results = path / "results"
        path.mkdir(parents=True)

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """The folder's command, or another one, in a process group of its own."""
        with (self.path / "stderr").open("wb") as stderr:
            return subprocess.Popen(  # noqa: S603  # our own command
                [sys.executable, __file__, *(words or COMMANDS[self.name])],
                cwd=self.path,
                env=os.environ | {"BENCH_CACHE": str(self.path / "cache"), "OMP_NUM_THREADS": "1", CHILD: "1"},
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,
            )

    def finish(self) -> float:
        """Runs the command to its end; returns the seconds that it took."""
        started, process = time.monotonic(), self.start()
        if process.wait():
            raise RuntimeError(f"{self.name} failed without being killed:\n{(self.path / 'stderr').read_text()}")
        return time.monotonic() - started

    def finished_records(self) -> dict[str, bytes]:
        """The bytes of all records with numbers."""
        contents = {str(path): (self.path / path).read_bytes() for path in self.files("**/records/**/*.json")}
        return {name: content for name, content in contents.items() if b'"ok"' in content or "latency-" in name}

    def files(self, pattern: str) -> Iterator[Path]:
        """The files that a pattern matches, within this folder; hidden ones are left out."""
        found = sorted(path for path in self.path.glob(pattern) if path.is_file() and path.name[0] != ".")
        return (path.relative_to(self.path) for path in found)

    def content(self) -> dict[str, Any]:
        """What must be the same after every undisturbed end: records without times, bundles and cached tensors."""
        made: dict[str, Any] = {str(path): _steady(self.path / path) for path in self.files("**/records/**/*.json")}
        for path in sorted((self.path / "cache").glob("*.safetensors")):
            made[path.name] = _tensors(path)
        for path in self.path.glob("*.zip"):
            made[path.name] = _members(path)
        if self.name == "report":
            made |= {str(path): (self.path / path).read_bytes() for path in self.files("results/**/*")}
        return made

    def damage(self, whole: dict[str, Any]) -> Iterator[str]:
        """What is wrong with files as a kill has left them, beside those of an undisturbed end."""
        try:
            content = self.content()
        except Exception as error:
            yield f"a file cannot be read: {type(error).__name__}: {error}"
            return
        for name, value in content.items():
            failed = isinstance(value, dict) and value.get("status", "ok") != "ok"
            if name in whole and value != whole[name] and not failed:
                yield f"{name} is not what an undisturbed run writes"


def _steady(path: Path) -> dict[str, Any]:
    tree = json.loads(path.read_text())
    if path.name.startswith("latency-"):
        return {key: tree[key] for key in ("dataset", "model", "defense")}
    return {key: value for key, value in tree.items() if key not in UNSTEADY}


def _tensors(path: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    tensors = load_file(path)
    kept = {name: value for name, value in tensors.items() if not name.startswith(("cost.", "seconds."))}
    return {name: (str(value.dtype), value.shape, value.tobytes()) for name, value in kept.items()}


def _members(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as bundle:
        if bundle.testzip() is not None:
            raise ValueError(f"{path} is damaged")
        return {"names": sorted(bundle.namelist())}


def _children(pid: int) -> list[int]:
    """The worker processes of a process."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(one) for one in tasks]
    return []


def _kill(process: subprocess.Popen[bytes], victim: str, chance: random.Random) -> None:
    """SIGKILL to the whole group, the parent, or a worker if there is one; then waits until all have ended."""
    workers = _children(process.pid) if victim == "worker" else []
    with suppress(ProcessLookupError):
        if victim == "group":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(chance.choice(workers) if workers else process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:  # orphans must end by themselves
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    raise TimeoutError("Worker processes outlived their parent by five minutes.")


def kill_again_and_again(name: str, kills: int, scratch: Path, chance: random.Random) -> list[str]:
    """Kills one command so many times; returns what went wrong."""
    undisturbed = _fresh(scratch, name, 0)
    seconds, whole = undisturbed.finish(), undisturbed.content()
    faults: list[str] = []
    killed, ends = 0, 0
    while killed < kills:
        ends += 1
        folder = _fresh(scratch, name, ends)
        while killed < kills:
            before, process, victim = folder.finished_records(), folder.start(), chance.choice(VICTIMS)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.1, 1.0) * seconds)
            if process.returncode == 0:
                break
            _kill(process, victim, chance)
            killed += 1
            after = folder.finished_records()
            wrong = [f"{path} was lost or changed" for path in before if after.get(path) != before[path]]
            wrong += folder.damage(whole)
            faults += [f"{name}, kill {killed} ({victim}): {what}" for what in wrong]
        folder.finish()
        end = folder.content()
        different = sorted(path for path in whole.keys() | end.keys() if whole.get(path) != end.get(path))
        faults += [f"{name}, run {ends}: {path} differs from that of an undisturbed run" for path in different]
        if folder.start("report", "--check").wait() and name in ("run", "curve", "report"):
            faults.append(f"{name}, run {ends}: its tables are not those of its records")
    print(f"{name}: {killed} kills in {ends} runs of {seconds:.0f} s, {len(faults)} faults", flush=True)  # noqa: T201
    return faults


def _fresh(scratch: Path, name: str, number: int) -> Folder:
    folder = Folder(scratch / f"{name}-{number}", name)
    if name == "report":
        _give_records(folder)
    return folder


def _give_records(folder: Folder) -> None:
    """Records for a report, from the project's own results."""
    source = Path(__file__).parent.parent / "results" / "records"
    some = sorted(source.glob("*/*/*.json"))[::40]
    for path in some:
        copy = folder.results / "records" / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())


def main() -> None:
    """Spreads the kills over the commands; exit code 1 for any fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    words = parser.parse_args()
    chance, commands = random.Random(words.seed), words.commands
    shares = [len(range(place, words.kills, len(commands))) for place in range(len(commands))]
    faults = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, kills in zip(commands, shares, strict=True):
            faults += kill_again_and_again(name, kills, Path(scratch), chance)
    print("\n".join(faults), file=sys.stderr)  # noqa: T201
    sys.exit(bool(faults))


if __name__ == "__main__":
    if CHILD in os.environ:
        from bench.cli.main import main as bench_main

        bench_main()
    else:
        main()
