"""The named benchmarks: whole, fixed where they are published, and run as they are or not at all."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from bench.benchmarks.named import benchmark_names, benchmark_path, load_benchmark
from bench.cli.main import main
from bench.contracts import InputError
from bench.core.budgets import Patch
from bench.engine.on_benchmark import Inputs, check_inputs
from bench.plugins.registry import canonical_text, make_attack
from bench.records.store import Store

PUBLISHED = {
    "v1": "d73a88305aca644d837f29c9add548415bb0f5944d418a9674c0dace5a6f877e",
    "smoke": "90b6a094e5671223060857f9db0141bb2bd38d42e3b85641cefac0bbdcc39330",
}
"""Benchmarks with records that others rely on: their files never change. A successor is a new file with a new name."""


def bench(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Calls the bench in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_benchmark_is_as_it_was_published(name: str) -> None:
    content = benchmark_path(name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == PUBLISHED[name], f"{name} is published: give the change a new name"


@pytest.mark.parametrize("name", benchmark_names())
def test_a_benchmark_says_everything_and_names_its_attacks_as_cells_do(name: str) -> None:
    benchmark = load_benchmark(name)
    assert benchmark.attacks == tuple(canonical_text("attack", text) for text in benchmark.attacks)
    assert benchmark.has_data(benchmark.dataset)
    cells = benchmark.cells(benchmark.dataset, benchmark.model, "lgs")
    assert len(set(cells)) == len(benchmark.attacks) * len(benchmark.tiers) * len(benchmark.seeds)
    for cell in cells:
        assert benchmark.has(cell)
        make_attack(cell.attack, cell.effort)


def test_a_benchmark_has_no_cells_of_other_images_budgets_or_data() -> None:
    benchmark = load_benchmark("cifar10-patch")
    (cell, _) = benchmark.cells("folder:cifar10-500@1a2b3c4d", "resnet20", "lgs")
    assert benchmark.has(cell)
    for name, value in {"images": 100, "seed": 1, "effort": "quick", "attack": "fgsm", "dataset": "photos"}.items():
        assert not benchmark.has(type(cell)(**{**vars(cell), name: value}))


def test_the_patch_on_cifar_is_a_square_of_five_pixels() -> None:
    (text,) = load_benchmark("cifar10-patch").attacks
    budget = make_attack(text).budget
    assert isinstance(budget, Patch)
    assert round(budget.area * 32 * 32) == 25


def test_a_name_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'smoke'"):
        load_benchmark("smok")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--attack", "fgsm"], "The benchmark 'smoke' fixes --attack"),
        (["--images", "3"], "The benchmark 'smoke' fixes --images"),
        (["--dataset", "photos:crop=24"], "is about photos, but the data set is photos:crop=24"),
        (["--model", "resnet20"], "needs trained weights, but those of resnet20 are random"),
        (["file.toml"], "an experiment file or a benchmark, but got both"),
    ],
)
def test_what_would_not_be_the_benchmark_is_refused_before_any_work(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.toml").write_text("images = 3")
    assert bench(monkeypatch, "run", "--benchmark", "smoke", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("*.json"))


def test_the_inputs_of_a_benchmark_are_checked_without_the_device_of_another_machine() -> None:
    smoke = load_benchmark("smoke")
    check_inputs(smoke, [Inputs(device="cuda:77").setting(smoke, 0)])


def test_a_run_of_a_benchmark_computes_its_cells_and_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert bench(monkeypatch, "run", "--benchmark", "smoke", "--defense", "jpeg", "--workers", "0") == 0
    cells = {record.cell for record in Store(tmp_path / "results").outcomes()}
    smoke = load_benchmark("smoke")
    assert cells == {cell for name in ("none", "jpeg") for cell in smoke.cells("photos", "photos-cnn", name)}
