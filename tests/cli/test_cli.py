"""The command line as a user meets it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from bench.cli.listing import loader_summaries
from bench.cli.main import main
from bench.cli.options import MatrixOptions
from bench.data.load import DATASETS
from bench.models import MODELS


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
    (folder / "printed").write_text(done.stdout)
    return folder


def test_a_run_prints_its_table_and_writes_records_tables_and_patches(results: Path) -> None:
    printed = (results / "printed").read_text()
    for word in ("photos", "lgs", "none", "oblivious", "adaptive", "20 images", "quick", "patch ≤"):
        assert word in printed
    assert len(list((results / "results" / "records").rglob("patch*.json"))) == 4
    assert (results / "results" / "site" / "index.html").is_file()
    assert (results / "results" / "README.md").is_file()
    assert len(list((results / "results" / "patches").rglob("*.png"))) == 4


def test_a_second_run_computes_nothing_and_leaves_every_file_as_it_was(results: Path) -> None:
    before = {path: path.read_bytes() for path in (results / "results").rglob("*") if path.is_file()}
    words = ["run", "--attack", "patch:steps=5", "--defense", "none,lgs", "--images", "20", "--effort", "quick"]
    done = bench(*words, folder=results)
    assert "4 of 4 cells were computed before" in done.stderr
    assert done.stdout == (results / "printed").read_text()
    assert {path: path.read_bytes() for path in (results / "results").rglob("*") if path.is_file()} == before


def test_a_changed_plugin_makes_its_cells_stale_and_says_so(tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text((Path(__file__).parent.parent / "plugin" / "acme_blur.py").read_text())
    words = ["run", "--plugin", "mine.py", "--attack", "fgsm", "--defense", "acme-blur", "--images", "20"]
    words += ["--tier", "oblivious"]
    assert bench(*words, folder=tmp_path).returncode == 0
    plugin.write_text(plugin.read_text().replace("half = self.size // 2", "half = self.size // 2 + 0"))
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
def test_commands_that_compute_nothing_do_not_import_torch(words: list[str], results: Path) -> None:
    code = f"import atexit, sys; sys.argv[1:] = {words!r}; atexit.register(lambda: print('torch' in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code + "\nfrom bench.cli.main import main; main()"],
        cwd=results,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("False")


def test_a_console_that_knows_only_ascii_gets_look_alikes(results: Path) -> None:
    words = ["run", "--attack", "patch:steps=5", "--defense", "none,lgs", "--images", "20", "--effort", "quick"]
    command = [sys.executable, "-m", "bench", *words]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=results, env=environment, capture_output=True, check=True)
    assert "patch <= 10 %" in done.stdout.decode("ascii")


def test_what_is_listed_comes_from_the_loaders() -> None:
    for file, table, loaders in (("data/load.py", "DATASETS", DATASETS), ("models/zoo.py", "MODELS", MODELS)):
        listed = loader_summaries(file, table)
        assert listed == {
            name: (loader.__doc__ or "").split("\n")[0].replace("`", "") for name, loader in loaders.items()
        }


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
    ("words", "message"),
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
        (["--seed", "-1"], "Expected seeds from 0"),
        (["--seed", "0,-1"], "Expected seeds from 0"),
        (["--seed", ""], "whole number"),
        (["--timeout", "9", "--workers", "0"], "--workers 1 or more"),
        (["--target", "12"], "12"),
        (["--target", "²"], "²"),
        (["--target", "zebra"], "zebra"),
        (["--device", "abacus"], "abacus"),
        (["--device", "abacus", "--precision", "bfloat16"], "abacus"),
        (["--results", "locked/results"], "locked"),
        (["--plugin", "absent.py"], "absent.py"),
        (["--attack", ""], "Expected at least one attack"),
        (["--dataset", ""], "Expected at least one data set and one model"),
        (["--model", ","], "Expected at least one data set and one model"),
        (["--mean", "0.5:x"], "--mean"),
    ],
)
def test_bad_input_is_refused_before_any_work_with_exit_code_2(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "two" / name / "x.png")
    (tmp_path / "locked").write_text("a file where a folder should be")
    monkeypatch.chdir(tmp_path)
    assert message in refusal(words, monkeypatch, capsys)
    assert not list(tmp_path.rglob("*.json"))


def test_only_the_machine_that_computes_is_asked_for_its_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: False)
    assert MatrixOptions(engine="slurm", device="cuda", precision="bfloat16").setting().precision == "bfloat16"


def refusal(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What `bench run` says, in one line, when it ends with exit code 2."""
    defaults = {"--attack": "fgsm", "--defense": "none", "--images": "2"}
    options = defaults | dict(zip(words[::2], words[1::2], strict=True))
    monkeypatch.setattr(sys, "argv", ["bench", "run", *(word for pair in options.items() for word in pair)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    return " ".join(capsys.readouterr().err.split())


def test_weights_that_cannot_be_right_are_refused_and_their_code_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in damaged(tmp_path).values():
        assert path.name in refusal(["--weights", str(path)], monkeypatch, capsys)
    assert not (tmp_path / "owned").exists()


def test_a_wrong_choice_of_an_option_names_the_right_ones(tmp_path: Path) -> None:
    done = bench("run", "--tier", "both-ways", folder=tmp_path)
    assert done.returncode == 2
    assert "oblivious" in done.stderr


def test_a_file_that_cannot_be_written_is_one_line_with_exit_code_2(results: Path) -> None:
    done = bench("export", "--out", "nowhere/table.csv", folder=results)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: nowhere/table.csv: No such file or directory.")
