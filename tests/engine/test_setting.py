"""From what a run reads on this machine to the cells of records, and back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.contracts import InputError
from bench.core.identity import without_hashes
from bench.data.load import load_dataset
from bench.engine.engines import Local
from bench.engine.matrix import compute
from bench.engine.plan import Plan, plan
from bench.engine.setting import Setting, cell_of, has_weights, model_text, name_files, setting_of
from bench.models import Net, load_model
from bench.plugins.registry import make_attack, make_defense
from bench.records.command import command
from bench.records.schema import Cell
from bench.records.store import Store


def images(root: Path, seed: int = 0) -> Path:
    chooser = np.random.default_rng(seed)
    for name in ("a", "b"):
        for number in range(4):
            (root / name).mkdir(parents=True, exist_ok=True)
            pixels = chooser.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def weights(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    model = load_model("mnist-cnn", num_classes=2, image_shape=(3, 8, 8), seed=seed)
    assert isinstance(model, Net)
    torch.save(model.network.state_dict(), path)
    return path


def picture(path: Path, colour: str = "#404040") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path)
    return path


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    root = images(tmp_path / "home" / "cats")
    return Setting(f"folder:{root}", "mnist-cnn", weights=weights(tmp_path / "home" / "best.pt"))


def planned(setting: Setting, store: Store, attacks: str = "fgsm:eps=0.01") -> Plan:
    return plan(setting, attacks, "none", ("oblivious",), (0,), "quick", store)


def computed(setting: Setting, store: Store, attacks: str = "fgsm:eps=0.01") -> list[Cell]:
    """Runs a plan and returns the cells that then have records."""
    made = planned(setting, store, attacks)
    for done in compute(made, store, [], Local(0), None, lambda task, share, doing: None):
        assert done.record.status == "ok", done.record.reason
    return [outcome.cell for outcome in store.outcomes()]


def test_the_file_of_a_parameter_is_named_wherever_it_stands(tmp_path: Path) -> None:
    file, others = picture(tmp_path / "x" / "p.png"), weights(tmp_path / "x" / "w.pt")
    text = f"patch:area=0.5,image={file},models=victim;resnet20@{others}"
    named, files = name_files(text, make_attack(text))
    assert without_hashes(named) == "patch:area=0.5,image=p.png,models=victim;resnet20@w.pt"
    assert Setting("photos", "photos-cnn", files=tuple(files.items())).local(named) == text
    assert name_files("jpeg:quality=30+lgs", make_defense("jpeg:quality=30+lgs")) == ("jpeg:quality=30+lgs", {})


def test_a_cell_has_the_names_of_what_a_setting_reads(setting: Setting) -> None:
    cell = cell_of(setting, load_dataset(setting.dataset), "fgsm", "none", "oblivious", "quick")
    assert without_hashes(cell.dataset) == "folder:cats"
    assert without_hashes(cell.model) == "mnist-cnn:weights=best.pt"
    assert cell.dataset != without_hashes(cell.dataset)
    assert cell.model != without_hashes(cell.model)
    assert command(cell).startswith(
        "bench run --attack fgsm --defense none --dataset folder:cats --model mnist-cnn --weights best.pt --images all"
    )


def test_mean_std_and_named_weights_are_part_of_a_model(setting: Setting) -> None:
    text, _ = model_text(replace(setting, mean=(0.5,), std=(0.25, 0.5, 1)))
    assert without_hashes(text) == "mnist-cnn:mean=0.5,std=0.25:0.5:1,weights=best.pt"
    assert has_weights(text, setting.weights)
    assert not has_weights(text, None)
    assert has_weights("torchvision:resnet50,weights=IMAGENET1K_V1", None)
    assert has_weights("mnist-cnn:weights=best.pt", setting.weights)


def test_a_setting_comes_back_from_its_cell(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(setting, load_dataset(setting.dataset), "fgsm", "none", "oblivious", "quick")
    assert setting_of(cell, setting.dataset, setting.weights, "cpu") == setting
    with pytest.raises(InputError, match="--dataset"):
        setting_of(cell, None, setting.weights, "cpu")
    with pytest.raises(InputError, match="--weights"):
        setting_of(cell, setting.dataset, None, "cpu")
    monkeypatch.chdir(tmp_path / "home")
    assert setting_of(cell, None, None, "cpu") == replace(setting, dataset="folder:cats", weights=Path("best.pt"))


def test_another_folder_or_file_of_the_same_name_is_refused(setting: Setting, tmp_path: Path) -> None:
    cell = cell_of(setting, load_dataset(setting.dataset), "fgsm", "none", "oblivious", "quick")
    other = images(tmp_path / "other" / "cats", seed=7)
    with pytest.raises(InputError, match=r"Expected the data set folder:cats@"):
        setting_of(cell, f"folder:{other}", setting.weights, "cpu")
    with pytest.raises(InputError, match=r"best\.pt@\w+, but .* has another content"):
        setting_of(cell, setting.dataset, weights(tmp_path / "other" / "best.pt", seed=1), "cpu")


def test_the_files_of_a_cells_attack_are_looked_for_in_the_current_folder(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"patch:area=0.5,image={picture(tmp_path / 'x' / 'p.png')}"
    named, _ = name_files(text, make_attack(text))
    cell = cell_of(setting, load_dataset(setting.dataset), named, "none", "oblivious", "quick")
    with pytest.raises(InputError, match=r"no p\.png"):
        setting_of(cell, setting.dataset, setting.weights, "cpu")
    monkeypatch.chdir(tmp_path / "x")
    found = setting_of(cell, setting.dataset, setting.weights, "cpu")
    assert found.local(cell.attack) == "patch:area=0.5,image=p.png"


def test_two_folders_and_two_files_of_one_name_have_records_of_their_own(setting: Setting, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    computed(setting, store)
    other = images(tmp_path / "other" / "cats", seed=7)
    computed(replace(setting, dataset=f"folder:{other}"), store)
    cells = computed(replace(setting, weights=weights(tmp_path / "other" / "best.pt", seed=1)), store)
    assert len(cells) == len({cell.with_texts(without_hashes) for cell in cells}) + 2 == 3
    assert not planned(setting, store).tasks


def test_what_has_changed_in_place_is_computed_again_and_replaces_its_record(setting: Setting, tmp_path: Path) -> None:
    store, file = Store(tmp_path / "results"), picture(tmp_path / "x" / "p.png")
    attacks = f"patch:area=0.5,image={file}"
    (before,) = computed(setting, store, attacks)
    for change in (
        lambda: picture(file, "#0000ff"),
        lambda: weights(tmp_path / "home" / "best.pt", seed=1),
        lambda: images(tmp_path / "home" / "cats", seed=1),
    ):
        change()
        assert any("stale, since" in line for line in planned(setting, store, attacks).stale)
        (after,) = computed(setting, store, attacks)
        assert after != before
        assert after.with_texts(without_hashes) == before.with_texts(without_hashes)
        assert not planned(setting, store, attacks).stale
        before = after
    assert len(list(store.latencies())) == 1


def test_no_folder_of_this_machine_is_in_a_record(setting: Setting, tmp_path: Path) -> None:
    store = Store(tmp_path / "results")
    computed(setting, store, f"patch:area=0.5,image={picture(tmp_path / 'home' / 'p.png')}")
    for file in store.records.rglob("*.json"):
        assert str(tmp_path) not in file.read_text()
    (outcome,) = store.outcomes()
    assert outcome.attack
    assert without_hashes(outcome.attack.parameters["image"]) == "p.png" != outcome.attack.parameters["image"]
