"""What a run computes again: cells whose model, plugins or files changed, and no others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.engine.plan import CellTask, Plan, plan
from bench.engine.queue import TaskQueue
from bench.engine.setting import Setting
from bench.engine.testbed import testbed_of
from bench.engine.workers import execute
from bench.plugins import registry
from bench.records.schema import Outcome
from bench.records.store import Store

MODEL = """
import torch
from h1_scale import SCALE
class Mean(torch.nn.Module):
    def forward(self, images): return SCALE * images.mean((2, 3))
def make(shift=0): return Mean()
"""
PLUGIN = """
from dataclasses import dataclass
from bench.contracts import Transform
from h1_shade import shade
@dataclass(frozen=True)
class Shade(Transform):
    '''Shades.'''
    name = "h1-shade"
    title = "Shade"
    def clean(self, images, rng): return shade(images)
"""

Run = Callable[..., Plan]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Plans a run on three classes of two images, computes its cells, and returns the plan as it was before."""
    draw = np.random.default_rng(0)
    for number, name in enumerate("abc"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for image in range(2):
            pixels = draw.integers(0, 60, (8, 8, 3))
            pixels[..., number] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "images" / name / f"{image}.png")
    (tmp_path / "h1_scale.py").write_text("SCALE = 10.0\n")
    (tmp_path / "h1_model.py").write_text(MODEL)
    (tmp_path / "h1_shade.py").write_text("def shade(images): return images\n")
    (tmp_path / "shade.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(registry, "_from_files", {})
    store = Store(tmp_path / "results")

    def call(attacks: str = "fgsm:eps=0.1", defenses: str = "none", model: str = "python:h1_model:make") -> Plan:
        for name in [name for name in sys.modules if name.startswith("h1_")]:
            del sys.modules[name]  # another run is another process
        testbed_of.cache_clear()
        if "h1-shade" in defenses:
            registry.add_file(tmp_path / "shade.py")
        setting = Setting(f"folder:{tmp_path / 'images'}", model)
        planned = plan(setting, attacks, defenses, ["oblivious"], [0], "quick", store)
        cells = [task for task in planned.tasks if isinstance(task, CellTask)]
        for done in execute(TaskQueue(cells), [], 0, None, lambda task, share, doing: None):
            assert isinstance(done.record, Outcome)
            assert done.record.status == "ok", done.record.reason
            store.save(done.record)
        return planned

    yield call
    testbed_of.cache_clear()


def cells(planned: Plan) -> int:
    return sum(isinstance(task, CellTask) for task in planned.tasks)


def test_the_code_of_a_python_model_and_of_what_it_imports(run: Run, tmp_path: Path) -> None:
    assert cells(run()) == 1
    (tmp_path / "h1_model.py").write_text(MODEL + "# A comment.\n")
    assert cells(run()) == 0
    (tmp_path / "h1_scale.py").write_text("SCALE = -10.0\n")
    planned = run()
    assert cells(planned) == 1
    assert "stale" in planned.stale[0]


def test_a_helper_of_a_plugin(run: Run, tmp_path: Path) -> None:
    assert cells(run(defenses="none,h1-shade")) == 2
    (tmp_path / "h1_shade.py").write_text("def shade(images): return 1 - images\n")
    planned = run(defenses="none,h1-shade")
    assert cells(planned) == 1
    assert "h1-shade" in planned.stale[0]


def test_a_picture_that_a_parameter_names(run: Run, tmp_path: Path) -> None:
    picture = tmp_path / "patch.png"
    attack = f"patch:image={picture},area=0.5"
    Image.new("RGB", (4, 4), "red").save(picture)
    assert cells(run(attack)) == 1
    assert cells(run(attack)) == 0
    Image.new("RGB", (4, 4), "blue").save(picture)
    planned = run(attack)
    assert cells(planned) == 1
    assert "patch.png" in planned.stale[0]


def test_two_spellings_are_one_cell(run: Run) -> None:
    planned = run("fgsm:eps=0.1,fgsm:eps=0.10", "none,jpeg:quality=30,jpeg:quality=030")
    assert cells(planned) == 2
    assert cells(run("fgsm:eps=1/10", "none", "python:h1_model:make,shift=0")) == 1
    assert cells(run("fgsm:eps=1/10", "none", "python:h1_model:make,shift=00")) == 0


def test_a_model_without_weights_is_a_warning(run: Run) -> None:
    assert "untrained" in run(model="resnet20").warnings[0]
    assert not run().warnings
