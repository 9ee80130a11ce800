"""Adversarial images from anyone, against a row of the board."""

from __future__ import annotations

import pickle
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from bench.benchmarks.named import load_benchmark
from bench.cli.main import main
from bench.engine.on_benchmark import Inputs
from bench.engine.run import run_cell
from bench.engine.setting import Setting
from bench.engine.testbed import testbed_of
from bench.errors import InputError
from bench.plugins.registry import add_file
from bench.records.command import command
from bench.records.metrics import attacked_accuracy
from bench.records.schema import Cell
from bench.records.store import Store
from bench.submit.accept import accept
from bench.submit.bundle import unpack
from bench.submit.import_attack import import_attack
from bench.submit.verify import Verdict

from .forging import PLUGIN, content, packed, walled

SETTING = Inputs().setting(load_benchmark("smoke"), 0)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board with one row and one attack that hardly does anything."""
    folder = tmp_path_factory.mktemp("board")
    cell = Cell("photos", "photos-cnn", "fgsm:eps=8/255", "none", "adaptive", effort="quick", images=12)
    Store(folder).save(run_cell(cell, SETTING, lambda share, doing: None).outcome)
    return folder


def attack_file(
    path: Path, eps: float, rows: slice = slice(None), setting: Setting = SETTING, **more: torch.Tensor
) -> Path:
    testbed = testbed_of(setting)
    leaf = testbed.images.clone().requires_grad_()
    for _ in range(10):
        loss = testbed.goal.cross_entropy(testbed.bare(leaf, testbed.streams)).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        moved = leaf.detach() - 0.3 * eps * gradient.sign()
        leaf = moved.clamp(testbed.images - eps, testbed.images + eps).clamp(0, 1).requires_grad_()
    save_file(
        {"adversarial": leaf.detach()[rows].contiguous(), "index": testbed.indices[rows].contiguous()} | more, path
    )
    return path


def imported(file: Path, board: Path, author: str = "A. <b>Breaker</b>", name: str = "breaker") -> Any:
    return import_attack(file, name, author, "none", "fgsm:eps=8/255", SETTING, board, "quick", "adaptive")


def test_adversarial_images_from_anyone_lower_the_row_and_both_values_stay_visible(board: Path, tmp_path: Path) -> None:
    result = imported(attack_file(tmp_path / "a.safetensors", 8 / 255), board)
    assert result.after < result.before
    record = Store(board).find("attack=imported:breaker")
    assert record.facts is not None
    accuracy = attacked_accuracy(record.facts)
    assert accuracy is not None
    assert result.after <= accuracy.value < result.before
    assert record.attack is not None
    assert record.attack.parameters["author"] == "A. <b>Breaker</b>"
    assert record.attack.parameters["within"] == "fgsm:eps=8/255"
    assert len(record.attack.parameters["date"]) == 10
    for ending in (".md", ".html"):
        text = "".join(path.read_text() for path in result.files if path.suffix == ending)
        assert f"{100 * result.before:.1f}" in text
        assert f"{100 * result.after:.1f}" in text
        assert "<b>Breaker" not in text
        assert "Breaker" in text
    again = imported(tmp_path / "a.safetensors", board)  # its own record does not count as there before
    assert (again.before, again.after) == (result.before, result.after)


@walled
def test_a_submitted_defense_is_broken_behind_walls(bundle: Path, tmp_path: Path) -> None:
    results, setting = tmp_path / "results", Inputs().setting(load_benchmark("tiny"), 0)
    outcomes = unpack(bundle).outcomes
    accept(Verdict("verified", "", (), unpack(bundle), outcomes), results)
    file = attack_file(tmp_path / "a.safetensors", 8 / 255, setting=setting)

    def broken(defense: str, path: Path | None) -> Any:
        return import_attack(file, "x", "A", defense, "fgsm", setting, results, "quick", "adaptive", path)

    result = broken("acme-blur", bundle)
    assert result.after <= result.before
    assert Store(results).find("attack=imported:x").cell.defense == "acme-blur"
    with pytest.raises(InputError, match="the board has none"):
        broken("acme-blur:size=5", bundle)
    add_file(PLUGIN)
    with pytest.raises(InputError, match="--bundle"):
        broken("acme-blur", None)
    learned = packed(tmp_path / "b.zip", content(bundle) | {"learned/seed-0.safetensors": save({"w": torch.ones(1)})})
    with pytest.raises(InputError, match="other code, weights or learned tensors"):
        broken("acme-blur", learned)


def test_the_printed_command_imports_the_attack_again(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = imported(attack_file(tmp_path / "a file.safetensors", 8 / 255), board, name="again")
    program, *words = shlex.split(command(Store(board).find("attack=imported:again")))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [program, *words, "--results", str(tmp_path / "results")])
    shutil.copytree(board / "records", tmp_path / "results" / "records")
    (old,) = (tmp_path / "results").rglob("imported-again*.json")
    old.unlink()
    with pytest.raises(SystemExit, match="0"):
        main()
    again = Store(tmp_path / "results").find("attack=imported:again")
    assert again.facts == result.outcome.facts
    assert again.attack == result.outcome.attack


def test_images_that_are_not_given_count_as_not_attacked(board: Path, tmp_path: Path) -> None:
    result = imported(attack_file(tmp_path / "a.safetensors", 8 / 255, slice(0, 2)), board, name="two")
    facts = result.outcome.facts
    assert len(facts.index) == 12
    assert facts.defended_attacked[2:] == facts.defended_clean[2:]
    assert result.outcome.attack.parameters["images"] == 2


def test_what_a_detector_rejects_anyway_is_not_caught(tmp_path: Path) -> None:
    defense = "squeeze:quick,bits=3,false_positive_rate=0.5,search=0"
    cell = Cell("photos", "photos-cnn", "fgsm:eps=8/255", defense, "adaptive", effort="quick", images=12)
    Store(tmp_path).save(run_cell(cell, SETTING, lambda share, doing: None).outcome)
    file = attack_file(tmp_path / "a.safetensors", 8 / 255)
    result = import_attack(file, "x", "A", defense, cell.attack, SETTING, tmp_path, "quick", "adaptive")
    facts = result.outcome.facts
    assert 0 < sum(facts.rejected_clean) < 12
    assert all(after <= before for before, after in zip(facts.defended_clean, facts.defended_attacked, strict=True))


def test_the_first_image_outside_the_budget_is_named(board: Path, tmp_path: Path) -> None:
    testbed = testbed_of(SETTING)
    images = testbed.images.clone()
    images[4:6, :, 0, 0] = 1 - images[4:6, :, 0, 0].round()
    save_file({"adversarial": images, "index": testbed.indices}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=rf"image {int(testbed.indices[4])} is outside the budget.*and 1 more"):
        imported(tmp_path / "a.safetensors", board, name="broken")
    images[3, 0, 0, 0] = torch.nan
    save_file({"adversarial": images, "index": testbed.indices}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=rf"image {int(testbed.indices[3])} holds NaN"):
        imported(tmp_path / "a.safetensors", board, name="broken")
    assert not list(board.rglob("*broken*.json"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"index": torch.arange(12) + 10**6}, "image \\[1000000\\]"),
        ({"index": torch.zeros(12, dtype=torch.int64)}, "once"),
        ({"adversarial": torch.zeros(12, 3, 8, 8)}, "shape"),
        ({"adversarial": torch.zeros(12, 3, 32, 32, dtype=torch.float64)}, "float32"),
        ({"label": torch.zeros(12)}, "named adversarial and index"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    more: dict[str, torch.Tensor], message: str, board: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        imported(attack_file(tmp_path / "a.safetensors", 0.01, **more), board)


def test_a_row_that_is_not_there_and_bad_names_are_refused(board: Path, tmp_path: Path) -> None:
    file = attack_file(tmp_path / "a.safetensors", 0.01)
    with pytest.raises(InputError, match="the board has none"):
        import_attack(file, "x", "A", "lgs", "fgsm:eps=8/255", SETTING, board, "quick")
    with pytest.raises(InputError, match="small letters"):
        imported(file, board, name="../x")
    with pytest.raises(InputError, match="author"):
        imported(file, board, author=" ")
    pickled = tmp_path / "p.safetensors"
    pickled.write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match="pickle"):
        imported(pickled, board)
    with pytest.raises(InputError, match="the board has none"):
        import_attack(file, "x", "A", "none", "occlusion", SETTING, board, "quick")
