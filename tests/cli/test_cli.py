"""The command line as a user meets it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file


def bench(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "110"}
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a small matrix was computed."""
    folder = tmp_path_factory.mktemp("small")
    words = ["run", "--attack", "patch:steps=5", "--defense", "none,lgs", "--images", "20", "--effort", "quick"]
    done = bench(*words, folder=folder)
    assert done.returncode == 0, done.stderr
    (folder / "told").write_text(done.stdout)
    return folder


def test_a_run_prints_its_table_and_writes_records_tables_and_patches(results: Path) -> None:
    told = (results / "told").read_text()
    for word in ("photos", "lgs", "none", "oblivious", "adaptive", "20 images", "quick", "patch ≤"):
        assert word in told
    assert len(list((results / "results" / "records").rglob("patch*.json"))) == 4
    assert (results / "results" / "site" / "index.html").is_file()
    assert (results / "results" / "README.md").is_file()
    assert len(list((results / "results" / "patches").rglob("*.png"))) == 4


def test_a_second_run_computes_nothing_and_leaves_every_file_as_it_was(results: Path) -> None:
    before = {path: path.read_bytes() for path in (results / "results").rglob("*") if path.is_file()}
    words = ["run", "--attack", "patch:steps=5", "--defense", "none,lgs", "--images", "20", "--effort", "quick"]
    done = bench(*words, folder=results)
    assert "4 of 4 cells were computed before" in done.stderr
    assert done.stdout == (results / "told").read_text()
    assert {path: path.read_bytes() for path in (results / "results").rglob("*") if path.is_file()} == before


def test_a_changed_plugin_makes_its_cells_stale_and_says_so(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text((Path(__file__).parent.parent / "plugin" / "acme_blur.py").read_text())
    words = [
        "run",
        "--plugin",
        "mine.py",
        "--attack",
        "fgsm",
        "--defense",
        "acme-blur",
        "--images",
        "20",
        "--tier",
        "oblivious",
    ]
    assert bench(*words, folder=tmp_path).returncode == 0
    plugin.write_text(plugin.read_text() + "\n# another blur\n")
    done = bench(*words, folder=tmp_path)
    assert done.returncode == 0
    assert "stale, since it was computed with another defense" in " ".join(done.stderr.split())


def test_tables_are_checked_against_the_records(results: Path) -> None:
    assert bench("report", "--check", folder=results).returncode == 0
    page = results / "results" / "README.md"
    text = page.read_text()
    page.write_text(text + "raised by hand")
    done = bench("report", "--check", folder=results)
    assert done.returncode == 1
    assert "README.md" in done.stderr
    assert bench("report", folder=results).returncode == 0
    assert page.read_text() == text


def test_one_cell_is_shown_with_numbers_provenance_command_and_pictures(results: Path) -> None:
    done = bench("show", "defense=lgs tier=adaptive", "--pictures", "pictures", folder=results)
    assert done.returncode == 0, done.stderr
    for word in ("attacked accuracy", "fingerprint of weights", "bench run --attack patch:steps=5"):
        assert word in done.stdout
    assert len(list((results / "pictures").glob("*.png"))) == 2


def test_a_learned_patch_can_be_used_again_as_a_picture(results: Path) -> None:
    (patch, *_) = sorted((results / "results" / "patches").rglob("*none-oblivious*.png"))
    words = ["run", "--attack", f"patch:image={patch}", "--defense", "none", "--images", "20", "--tier", "oblivious"]
    done = bench(*words, "--results", "again", folder=results)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["list"], ["report"]])
def test_commands_that_compute_nothing_answer_at_once(words: list[str], results: Path) -> None:
    code = (
        f"import atexit, sys; sys.argv = ['bench', *{words!r}]; atexit.register(lambda: print('torch' in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + "\nfrom bench.cli.main import main; main()"],
        cwd=results,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("False")
    times = []
    for _ in range(3):
        started = time.perf_counter()
        bench(*words, folder=results)
        times.append(time.perf_counter() - started)
    print(f"{words}: {min(times):.2f} s")  # noqa: T201  # told, not judged: machines differ


def damaged(folder: Path) -> dict[str, Path]:
    """Weights files that cannot be right."""
    whole = folder / "whole.safetensors"
    save_file({"conv.weight": torch.zeros(3, 3)}, whole)
    cut = folder / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:30])
    code = folder / "code.pt"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (folder / "owned",))

    code.write_bytes(pickle.dumps(Evil()))
    saved = folder / "saved.pt"
    torch.save({"x": Evil()}, saved)
    return {"keys": whole, "cut": cut, "code": code, "saved code": saved}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--attack", "pacth"], "No attack named 'pacth'. Did you mean 'patch'"),
        (["--defense", "lsg"], "No defense named 'lsg'. Did you mean 'lgs'"),
        (["--attack", "fgsm:epsilon=1"], "parameter of the attack 'fgsm' named 'epsilon'"),
        (["--attack", "patch:area=1.5"], "area"),
        (["--attack", "ifgsm:steps=0"], "steps"),
        (["--defense", "jpeg:quality=200"], "quality"),
        (["--dataset", "fotos"], "No data set named 'fotos'. Did you mean 'photos'"),
        (["--dataset", "folder:nowhere"], "nowhere"),
        (["--dataset", "folder:empty"], "empty"),
        (["--model", "resnet99"], "No model named 'resnet99'"),
        (["--dataset", "folder:two"], "10"),
        (["--images", "0"], "0"),
        (["--images", "1000000"], "1000000"),
        (["--images", "many"], "whole number"),
        (["--seed", "x"], "whole number"),
        (["--target", "12"], "12"),
        (["--target", "zebra"], "zebra"),
        (["--device", "abacus"], "abacus"),
        (["--results", "locked/results"], "locked"),
        (["--plugin", "absent.py"], "absent.py"),
        (["--attack", ""], "Expected at least one attack"),
        (["--mean", "0.5:x"], "--mean"),
    ],
)
def test_bad_input_is_refused_before_any_work_with_exit_code_2(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    from bench.cli.main import main

    (tmp_path / "empty").mkdir()
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "two" / name / "x.png")
    (tmp_path / "locked").write_text("a file where a folder should be")
    given = dict(zip(words[::2], words[1::2], strict=True))
    defaults = {"--attack": "fgsm", "--defense": "none", "--images": "2"}
    line = [word for pair in (defaults | given).items() for word in pair]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", "run", *line])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.rglob("*.json"))


def test_weights_that_cannot_be_right_are_refused_and_their_code_is_not_run(tmp_path: Path) -> None:
    for path in damaged(tmp_path).values():
        words = ["run", "--attack", "fgsm", "--defense", "none", "--images", "2", "--weights", str(path)]
        done = bench(*words, folder=tmp_path)
        assert done.returncode == 2, done.stderr
        assert path.name in done.stderr
    assert not (tmp_path / "owned").exists()


def test_a_wrong_choice_of_an_option_names_the_right_ones(tmp_path: Path) -> None:
    done = bench("run", "--tier", "both-ways", folder=tmp_path)
    assert done.returncode == 2
    assert "oblivious" in done.stderr
