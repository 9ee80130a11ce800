"""A plugin that reaches for what is not its own costs its own cell, with the true reason, and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bench.engine.plan import CellTask
from bench.engine.queue import TaskQueue
from bench.engine.setting import Setting
from bench.engine.task import LONGEST_REASON
from bench.engine.testbed import testbed_of
from bench.engine.workers import execute, load_plugins
from bench.errors import InputError
from bench.plugins import registry
from bench.records.schema import Cell, Facts, Outcome, Tier

HOSTILE = Path(__file__).parent.parent / "plugin" / "hostile.py"
SETTING = Setting("photos", "photos-cnn", images=10)
NEIGHBOUR = Cell("photos", "photos-cnn", "ifgsm:steps=2", "bit-depth+loaded", "adaptive", "untargeted", "quick", 10)


def task(attack: str, defense: str, tier: Tier = "adaptive") -> CellTask:
    return CellTask(replace(NEIGHBOUR, attack=attack, defense=defense, tier=tier), SETTING)


def outcomes(*tasks: CellTask, workers: int = 0, timeout: float | None = None) -> list[Outcome]:
    records = [
        done.record for done in execute(TaskQueue(tasks), [HOSTILE], workers, timeout, lambda task, share, doing: None)
    ]
    assert all(isinstance(record, Outcome) for record in records)
    return records  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "_from_files", dict(registry._from_files))
    load_plugins([HOSTILE])
    yield
    testbed_of.cache_clear()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """The neighbour's facts in a run without anybody else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENCH_CACHE", str(tmp_path_factory.mktemp("alone")))
        load_plugins([HOSTILE])
        (outcome,) = outcomes(CellTask(NEIGHBOUR, SETTING))
    assert outcome.facts is not None
    return outcome.facts


CHANGES = {
    "zero-weights": "the weights of the bare model",
    "replace-forward": "the layers of the bare model",
    "replace-class-forward": "Net.forward",
    "leave-a-hook": "the layers of the bare model",
    "train-mode": "the layers of the bare model",
    "patch-torch": "torch.nn.functional.conv2d",
    "patch-tensor": "Tensor.argmax",
    "patch-engine": "Goal.reached",
    "patch-constant": "bench.engine.judge.GREY",
    "patch-another-plugin": "BitDepth.clean",
    "patch-a-loaded-plugin": "Loaded.protect",
    "patch-presets": "Loaded.presets",
    "replace-module": "torch.nn.functional",
    "default-type": "torch's default type",
    "no-gradients": "the gradient mode",
    "threads": "the number of threads",
    "seed-torch": "torch's global random numbers",
    "seed-numpy": "NumPy's global random numbers",
    "environment": "the environment",
    "folder": "the working directory",
    "sys-path": "sys.path",
    "signals": "signal handlers",
}
FAILURES = {
    "exit": ("error", "tried to end the run: SystemExit: 0 (hostile.py:"),
    "interrupt": ("error", "tried to end the run: KeyboardInterrupt"),
    "base-exception": ("error", "BaseException: out of the way"),
    "unreadable-error": ("error", "_UnreadableError: (its message cannot be read)"),
    "huge-message": ("error", "RuntimeError: xxxxx"),
    "surrogates": ("error", "RuntimeError: "),
    "wrong-type": ("error", "source and destination dtypes match"),
    "recursion": ("error", "RecursionError"),
    "no-memory": ("out-of-memory", "MemoryError: none left"),
}
HARMLESS = ["labels", "streams", "images", "garbage", "seed-python"]


@pytest.mark.parametrize("way", [*CHANGES, *FAILURES, *HARMLESS])
def test_an_attack_costs_its_own_cell_only(way: str, expected: Facts) -> None:
    record, neighbour = outcomes(task(f"hostile:way={way}", "none"), CellTask(NEIGHBOUR, SETTING))
    assert neighbour.status == "ok", neighbour.reason
    assert neighbour.facts == expected
    if way == "images":
        assert "outside the budget" in record.reason
    elif way in HARMLESS:
        assert record.status == "ok", record.reason
    else:
        status, reason = FAILURES[way] if way in FAILURES else ("error", CHANGES[way])
        assert record.status == status
        assert reason in record.reason
        assert record.reason.startswith("a plugin changed what other cells use: ") == (way in CHANGES)
        assert len(record.reason) <= LONGEST_REASON + 1
        assert record.reason.isprintable()
        assert record.attack is not None, "a board can name the attack"
        assert record.attack.traits["budget"] == "L∞ ≤ 0.01"


@pytest.mark.parametrize(
    ("defense", "reason"),
    [
        ("hostile-defense:way=images", "changed what other cells use: the clean images"),
        ("hostile-defense:way=weights", "changed what other cells use: the weights of the bare model"),
        ("hostile-learner:way=weights", "changed what other cells use: the weights of the bare model"),
        ("hostile-learner:way=labels", "changed what other cells use: the labels"),
        ("hostile-learner:way=nothing", "expected `learn` to return a dict"),
        ("hostile-defense:way=no-classifier", "expected `protect` to return a Classifier"),
        ("hostile-defense:way=shape", "expected logits of shape (10, 10), but got (10, 9)"),
        ("unreadable", "UnicodeEncodeError: 'utf-8' codec can't encode character"),
        ("hostile-defense:way=exit", "tried to end the run: SystemExit: 0 (hostile.py:"),
    ],
)
def test_a_defense_costs_its_own_cell_only(defense: str, reason: str, expected: Facts) -> None:
    record, neighbour = outcomes(task("fgsm", defense), CellTask(NEIGHBOUR, SETTING))
    assert record.status == "error"
    assert reason in record.reason
    assert neighbour.facts == expected


def test_a_record_names_no_folder_of_a_parameter() -> None:
    (record,) = outcomes(task("fgsm", "with-file"))
    assert record.defense is not None, record.reason
    assert record.defense.parameters["file"] == "hostile.py"


def test_what_is_learned_and_is_no_tensor_is_named() -> None:
    (record,) = outcomes(task("hostile-universal", "none"))
    assert "expected `learn` to return a dict of names and tensors" in record.reason


@pytest.mark.parametrize(
    ("way", "key", "warning"),
    [
        ("chance", "unrepeatable", "S08"),
        ("count", "unrepeatable", "S08"),
        ("neighbours", "depends_on_batch", "S34"),
        ("memory", "depends_on_history", "S34"),
        ("nan", "non_finite_attacked", "not finite for 100 % of the attacked images"),
    ],
)
def test_answers_that_depend_on_more_than_the_image_are_in_the_record(way: str, key: str, warning: str) -> None:
    (record,) = outcomes(task("fgsm", f"hostile-defense:way={way}", "oblivious"))
    assert record.facts is not None, record.reason
    assert key in record.facts.noted
    assert any(warning in text for text in record.warnings)


def test_a_defense_that_remembers_the_clean_images_gains_nothing() -> None:
    defenses = ("hostile-defense:way=memory", "none")
    remembering, plain = outcomes(*(task("fgsm", defense, "oblivious") for defense in defenses))
    assert remembering.facts is not None
    assert plain.facts is not None
    assert remembering.facts.defended_clean == plain.facts.defended_clean
    assert remembering.facts.defended_attacked == plain.facts.defended_attacked
    assert sum(plain.facts.defended_attacked) < sum(plain.facts.defended_clean)


def test_a_process_that_is_ended_costs_one_cell_and_its_true_reason_is_told(expected: Facts) -> None:
    ways = {
        "end-the-process": ("error", "ended, with exit code 3"),
        "kill": ("error", "was killed, with exit code -9 (SIGKILL)"),
        "crash": ("error", "exit code -11 (SIGSEGV)"),
        "close-the-pipe": ("error", "closed the connection"),
        "end-it-soon": ("ok", ""),
    }
    tasks = [task(f"hostile:way={way}", "none") for way in ways]
    records = {record.cell.attack: record for record in outcomes(*tasks, CellTask(NEIGHBOUR, SETTING), workers=2)}
    for way, (status, reason) in ways.items():
        record = records[f"hostile:way={way}"]
        assert record.status == status, record
        assert reason in record.reason
    assert records[NEIGHBOUR.attack].facts == expected


def test_a_cell_that_never_ends_is_a_timeout_and_the_next_one_has_a_new_process() -> None:
    for record in outcomes(*(task(f"hostile:way={way}", "none") for way in ("hang", "flood")), workers=1, timeout=3):
        assert record.status == "timeout"
        assert "longer than the 3 s of --timeout" in record.reason


def test_a_file_that_changes_things_as_it_is_imported_is_refused(tmp_path: Path) -> None:
    content = "import torch\ntorch.manual_seed(0)\n" + HOSTILE.read_text()
    (tmp_path / "seeding.py").write_text(content.replace("from __future__ import annotations\n", "", 1))
    with pytest.raises(InputError, match=r"As it is imported: .*torch's global random numbers"):
        load_plugins([tmp_path / "seeding.py"])
    (tmp_path / "ending.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(InputError, match=r"As it is imported: SystemExit: 0"):
        load_plugins([tmp_path / "ending.py"])


def test_a_timeout_without_a_process_of_its_own_is_refused() -> None:
    with pytest.raises(InputError, match="--workers 1 or more"):
        outcomes(CellTask(NEIGHBOUR, SETTING), timeout=5)
