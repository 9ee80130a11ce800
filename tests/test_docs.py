"""Every command, name, link and number on the pages for people is true."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
README = PAGES["README.md"]
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q "
SMALL = "--dataset photos:crop=16,train=2,test=20 --images 20"
SHORT = {"run": SMALL, "curve": SMALL, "import-attack": SMALL, "submit": "--benchmark smoke"}
"""Makes a command short: the same work on less data."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def commands(page: str) -> list[str]:
    """The lines that call the bench or pytest, without their comments and set-up."""
    lines = [
        line.split("  #")[0].split(" # ")[0].strip() for text in blocks(page, "bash") for line in text.splitlines()
    ]
    lines = [line.split("install -q . && ")[-1].replace(".venv/bin/", "") for line in lines]
    return [line for line in lines if line.startswith(("bench ", "pytest "))]


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    """A reader's folder: the pages' plugins, and images and weights of the reader's own."""
    (plugin,) = [text for text in blocks("README.md", "python") if "class " in text]
    (tmp_path / "blur.py").write_text(plugin)
    (experiment,) = blocks("README.md", "toml")
    (tmp_path / "experiment.toml").write_text(experiment)
    shutil.copy(ROOT / "tests" / "plugin" / "acme_blur.py", tmp_path)
    own_images(tmp_path / "own")
    own_weights(tmp_path / "w.safetensors")
    return tmp_path


def own_images(folder: Path) -> None:
    from PIL import Image

    for name in "abcdefghij":
        (folder / name).mkdir(parents=True)
        for number in range(10):
            Image.effect_noise((32, 32), 10 * number + 5).convert("RGB").save(folder / name / f"{number}.png")


def own_weights(path: Path) -> None:
    from safetensors.torch import save_file

    from bench.models import load_model

    network = load_model("resnet20", num_classes=10, image_shape=(3, 32, 32)).network
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)  # type: ignore[operator]


def attacked_images(folder: Path) -> None:
    """Somebody's adversarial images for the record of lgs under patches: the clean images, here."""
    import torch
    from safetensors.torch import save_file

    from bench.data.load import load_dataset
    from bench.records.store import Store

    record = Store(folder / "results").find("attack=patch defense=lgs tier=adaptive")
    assert record.facts
    index = torch.tensor(record.facts.index)
    save_file(
        {"adversarial": load_dataset(record.cell.dataset).test.load(index), "index": index},
        folder / "images.safetensors",
    )


def call(line: str, folder: Path) -> None:
    """Runs a line of a page as its reader would, on less data."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    assert shutil.which("bench", path=environment["PATH"])
    words = line.split()
    small = "--images 20" if "--dataset" in line else SHORT.get(words[1], "")
    line, small = line.replace("photos-patch", "smoke"), "" if "--benchmark" in line else small
    line = line.replace("PATH", "own").replace("FILE", "w.safetensors") + " " + small
    if words[1] in ("run", "curve", "import-attack") and "--effort" not in line and "--benchmark" not in line:
        line += " --effort quick"
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_both_first_commands_do_all_of_their_set_up() -> None:
    first, second = blocks("README.md", "bash")[:2]
    assert first.startswith(SET_UP + ". && .venv/bin/bench run --attack patch --defense lgs")
    assert second.startswith(SET_UP + "-e '.[dev,timm,autoattack,hf]'")
    for tool in ("ruff check", "mypy", "pytest"):
        assert tool in second


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_works(page: str, reader: Path) -> None:
    from bench.sandbox.isolation import lacking

    lines = commands(page)
    assert len(lines) >= 8
    for line in lines:
        if line.startswith(("bench verify", "bench accept")) and lacking():
            continue
        if line.startswith("bench import-attack"):
            call("bench run --attack patch --defense lgs", reader)
            attacked_images(reader)
        if line.startswith("bench compare"):
            shutil.copytree(reader / "results", reader / "results-before")
        call(line, reader)


def test_the_example_in_python_prints_a_table_of_the_results(reader: Path) -> None:
    call("bench run --attack patch --defense lgs", reader)
    (code,) = [text for text in blocks("README.md", "python") if "load_results" in text]
    done = subprocess.run([sys.executable, "-c", code], cwd=reader, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "lgs" in done.stdout


def test_the_example_of_a_model_in_memory_prints_its_table(reader: Path) -> None:
    (code,) = [text for text in blocks("README.md", "python") if "bench.evaluate" in text]
    assert len(code.strip().splitlines()) == 6  # five, and an empty one
    done = subprocess.run([sys.executable, "-c", code], cwd=reader, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "memory:ResNet" in done.stdout
    assert "jpeg" in done.stdout
    assert not (reader / "results").exists()


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((ROOT / "docs" / "python.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    names: dict[str, Any] = {}
    for cell in cells:
        exec(cell, names)  # noqa: S102  # our own
    assert {record.status for record in names["result"].cells} == {"ok"}
    assert float(names["changed"].max()) <= 0.05
    assert float(names["gradient"].abs().sum()) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_a_plugins_own_tests_passes(reader: Path) -> None:
    (code,) = [text for text in blocks("README.md", "python") if "parametrize" in text]
    (reader / "test_blur.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q"], cwd=reader, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_name_of_the_package_exists(page: str) -> None:
    names = set(re.findall(r"\bbench(?:\.[a-z_]\w*)+(?!/|\w)", PAGES[page]))
    imported = re.findall(r"from (bench[\w.]*) import (.+)", PAGES[page])
    names |= {f"{module}.{name.strip()}" for module, listed in imported for name in listed.split(",")}
    for name in names - {"bench.py"}:
        value: object = importlib.import_module("bench")
        for place, part in enumerate(name.split(".")[1:], 2):
            try:
                value = getattr(value, part)
            except AttributeError:
                value = importlib.import_module(".".join(name.split(".")[:place]))


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_linked_exists(page: str) -> None:
    for path in re.findall(r"\]\(([^)#:]+)\)", PAGES[page]):
        assert ((ROOT / page).parent / path).exists(), path


def test_pages_name_no_picture_larger_than_150_kilobytes() -> None:
    assert all(path.stat().st_size < 150_000 for path in (ROOT / "docs").glob("*.png"))


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
        chosen = frame[frame.dataset.str.contains(images) & (frame.effort == "standard")]
        tiers = chosen[(chosen.attack == attack) & (chosen.defense == defense)].set_index("tier")
        for number, tier, measure in (
            (clean, "oblivious", "clean_accuracy"),
            (oblivious, "oblivious", "attacked_accuracy"),
            (adaptive, "adaptive", "attacked_accuracy"),
        ):
            value, low, high = (100 * tiers.loc[tier, f"{measure}{end}"] for end in ("", "_low", "_high"))
            assert number == f"{value:.1f} <sub>{low:.1f}–{high:.1f}</sub>"


def test_the_reference_pages_are_those_of_the_code() -> None:
    for kind in ("attacks", "defenses"):
        command = [sys.executable, "-m", "bench", "list", kind, "--markdown"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert PAGES[f"docs/{kind}.md"] == done.stdout


@pytest.mark.parametrize("bundles", [["good"], ["good", "bad"], ["bad", "good"]])
def test_the_workflow_for_submissions_fails_unless_every_bundle_is_verified(bundles: list[str], tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="the extra dev brings PyYAML")
    workflow = yaml.safe_load((ROOT / "docs" / "verify-submission.yml").read_text())
    script = workflow["jobs"]["verify"]["steps"][-1]["run"]
    assert workflow["permissions"] == {"contents": "read"}
    repository, temporary, programs = (tmp_path / name for name in ("repository", "temporary", "programs"))
    for folder in (repository / "submissions", temporary, programs):
        folder.mkdir(parents=True)
    (programs / "bench").write_text('#!/bin/bash\necho "$*"\ngrep -q good bundle.zip\n')
    (programs / "bench").chmod(0o755)

    def git(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *words], cwd=repository, check=True, capture_output=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "base")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    for place, text in enumerate(bundles):
        (repository / "submissions" / f"{place} a.zip").write_text(text)
    git("add", ".")
    git("commit", "-q", "-m", "submissions")
    variables = {"BASE": "main", "RUNNER_TEMP": str(temporary), "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    variables["PATH"] = f"{programs}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-e", "-c", script], cwd=repository, env=os.environ | variables, check=False)
    assert (done.returncode == 0) == ("bad" not in bundles)
    assert (tmp_path / "summary").read_text().count("verify bundle.zip --markdown") == len(bundles)
