"""Every command of the README is run, in the order in which it stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, flags=re.DOTALL)
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q "


def commands() -> list[str]:
    """The lines that call the bench, without their comments; paths and files of the reader's own left out."""
    lines = [
        line.split("  #")[0].split(" # ")[0].strip()
        for kind, text in BLOCKS
        if kind == "bash"
        for line in text.splitlines()
    ]
    found = [line.replace(".venv/bin/", "").split("install -q . && ")[-1] for line in lines if "bench " in line]
    return [line for line in found if line.startswith("bench ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new user's folder, with the console script first on the path."""
    made = tmp_path_factory.mktemp("reader")
    (plugin,) = [text for kind, text in BLOCKS if kind == "python" and "class " in text]
    (made / "blur.py").write_text(plugin)
    return made


def test_both_first_commands_do_all_of_their_set_up() -> None:
    first, second = [text for kind, text in BLOCKS if kind == "bash"][:2]
    assert first.startswith(SET_UP + ". && .venv/bin/bench run --attack patch --defense lgs")
    assert second.startswith(SET_UP + "-e '.[dev,timm,autoattack]'")
    for tool in ("ruff check", "mypy", "pytest"):
        assert tool in second


def test_the_readme_has_commands_to_run() -> None:
    assert len(commands()) >= 8


def on_small_data(line: str, folder: Path) -> str:
    """The line with the reader's own images and weights made here."""
    from PIL import Image
    from safetensors.torch import save_file

    from bench.models import load_model

    if "PATH" not in line:
        return line
    for name in "abcdefghij":
        (folder / "own" / name).mkdir(parents=True, exist_ok=True)
        for number in range(10):
            Image.effect_noise((32, 32), 10 * number + 5).convert("RGB").save(folder / "own" / name / f"{number}.png")
    save_file(
        {
            key: value.contiguous()
            for key, value in load_model("resnet20", num_classes=10, image_shape=(3, 32, 32))
            .network.state_dict()
            .items()
        },
        folder / "w.safetensors",
    )
    return line.replace("PATH", "own").replace("FILE", "w.safetensors") + " --images 20 --effort quick"


@pytest.mark.timeout(900)
def test_every_command_of_the_readme_works(folder: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert shutil.which("bench", path=environment["PATH"])
    for line in commands():
        done = subprocess.run(
            ["bash", "-c", on_small_data(line, folder)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    (code,) = [text for kind, text in BLOCKS if kind == "python" and "load_results" in text]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lgs" in done.stdout


def test_files_that_the_readme_names_are_there() -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path


def test_the_numbers_of_the_readme_are_those_of_the_records() -> None:
    import bench

    frame = bench.load_results(str(ROOT / "results"))
    table = README.split("<!-- table -->")[1].split("<!-- /table -->")[0]
    rows = [
        [word.strip(" `") for word in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) >= 6
    for images, attack, defense, clean, oblivious, adaptive in rows:
        there = frame[frame.dataset.str.contains(images) & (frame.effort == "standard")]
        found = there[(there.attack == attack) & (there.defense == defense)]
        told = found.set_index("tier")
        for number, tier, measure in (
            (clean, "oblivious", "clean_accuracy"),
            (oblivious, "oblivious", "attacked_accuracy"),
            (adaptive, "adaptive", "attacked_accuracy"),
        ):
            value, low, high = (100 * told.loc[tier, f"{measure}{end}"] for end in ("", "_low", "_high"))
            assert number == f"{value:.1f} <sub>{low:.1f}–{high:.1f}</sub>"
