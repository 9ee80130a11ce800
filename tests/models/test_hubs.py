"""Models of hubs, from folders and fakes without a network; preparation of images; models with more classes."""

from __future__ import annotations

import json
import sys
from enum import Enum
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.contracts import InputError, Streams
from bench.data.load import load_dataset
from bench.engine.setting import Setting, data_text, model_text, setting_of
from bench.models import load_model, preparation_of
from bench.models.nets import SmallResNet
from bench.records.schema import Cell
from bench.weights_file import load_weights

small = partial(load_model, num_classes=4, image_shape=(3, 32, 32))
IMAGES = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
STREAMS = Streams.of(0, torch.arange(2))


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two tiny image classifiers of transformers with random weights, in folders."""
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    transformers.utils.logging.disable_progress_bar()
    vit = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=48, patch_size=16,
        num_labels=4,
    )  # fmt: skip
    resnet = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=4
    )
    folders = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = {
            "vit": transformers.ViTForImageClassification(vit),
            "resnet": transformers.ResNetForImageClassification(resnet),
        }
    settings = {
        "vit": {"size": {"height": 48, "width": 48}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2},
        "resnet": {
            "size": {"shortest_edge": 36}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
            "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3, "rescale_factor": 1 / 255, "resample": 3,
        },
    }  # fmt: skip
    for name, model in models.items():
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        (folders[name] / "preprocessor_config.json").write_text(json.dumps(settings[name]))
    return folders


def test_a_classifier_of_hugging_face_answers_as_transformers_says(hugging_face: dict[str, Path]) -> None:
    from transformers import AutoModelForImageClassification

    folder = hugging_face["resnet"]
    model = small(f"hf:{folder}")
    network = AutoModelForImageClassification.from_pretrained(folder).eval()
    mean = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    with torch.no_grad():
        expected = network((IMAGES - mean) / 0.2).logits
        torch.testing.assert_close(model(IMAGES, STREAMS), expected)
    assert model.trained
    assert not any(weight.requires_grad for weight in model.parameters())


def test_images_of_another_size_are_scaled_to_that_of_the_model(hugging_face: dict[str, Path]) -> None:
    from transformers import AutoModelForImageClassification

    model = small(f"hf:{hugging_face['vit']}")
    network = AutoModelForImageClassification.from_pretrained(hugging_face["vit"]).eval()
    larger = nn.functional.interpolate(IMAGES, (48, 48), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES, STREAMS), network((larger - 0.5) / 0.25).logits, atol=1e-4, rtol=1e-4)
    leaf = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf, STREAMS)[:, 0].sum(), leaf)
    assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rescale_factor": 1 / 127.5}, r"multiplies by 0\.007843 instead of 1/255"),
        ({"rescale_offset": True}, r"shifts .* not supported"),
        ({"do_flip_channel_order": True}, "swaps red and blue"),
        ({"include_top": True}, "standard deviation twice"),
        ({"image_processor_type": "EfficientNetImageProcessor"}, "standard deviation twice"),
        ({"do_normalize": True, "image_mean": None}, "without an image_mean"),
    ],
)
def test_preprocessing_that_is_no_normalisation_is_refused(
    change: dict[str, Any], message: str, hugging_face: dict[str, Path], tmp_path: Path
) -> None:
    for file in hugging_face["resnet"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | change))
    with pytest.raises(InputError, match=message):
        small(f"hf:{tmp_path}")


def test_weights_in_half_precision_of_hugging_face_answer_in_float32(
    hugging_face: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForImageClassification

    network = AutoModelForImageClassification.from_pretrained(hugging_face["resnet"]).half()
    network.save_pretrained(tmp_path)
    preprocessing = (hugging_face["resnet"] / "preprocessor_config.json").read_bytes()
    (tmp_path / "preprocessor_config.json").write_bytes(preprocessing)
    with torch.no_grad():
        logits = small(f"hf:{tmp_path}")(IMAGES, STREAMS)
        expected = small(f"hf:{hugging_face['resnet']}")(IMAGES, STREAMS)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, atol=1e-2, rtol=1e-2)


def test_a_network_of_hugging_face_without_its_last_layer_is_refused(
    hugging_face: dict[str, Path], tmp_path: Path
) -> None:
    for file in hugging_face["resnet"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in weights.items() if not key.startswith("classifier")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"2 tensors are missing, such as classifier.*random"):
        small(f"hf:{tmp_path}")


def test_pickled_weights_of_hugging_face_are_refused(hugging_face: dict[str, Path], tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((hugging_face["resnet"] / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        small(f"hf:{tmp_path}")


def test_a_folder_of_hugging_face_is_named_without_its_path(hugging_face: dict[str, Path]) -> None:
    folder = hugging_face["vit"]
    text, files = model_text(Setting("photos", f"hf:{folder}"))
    assert str(folder.parent) not in text
    assert text.startswith(f"hf:{folder.name}@")
    assert list(files.values()) == [folder]


def test_other_classes_than_the_data_sets_are_refused(hugging_face: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"data set's 10 classes, but hf:.* answers with 4"):
        load_model(f"hf:{hugging_face['vit']}", num_classes=10, image_shape=(3, 32, 32))


@pytest.mark.parametrize(("text", "extra"), [("hf:a/b", "hf"), ("robustbench:Standard", "robustbench")])
def test_a_missing_extra_names_its_command(text: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("transformers", "robustbench", "robustbench.model_zoo"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf"pip install 'defense-bench\[{extra}\]'"):
        small(text)


class _Key(Enum):
    """As RobustBench's keys are."""

    CIFAR = "cifar10"
    LINF = "Linf"


@pytest.fixture
def zoo(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A fake of RobustBench with one model; returns what was asked of its loader."""
    asked: dict[str, Any] = {}

    def load(**given: Any) -> nn.Module:
        asked.update(given)
        return SmallResNet(4)

    models = {_Key.CIFAR: {_Key.LINF: {"Carmon2019Unlabeled": {"model": lambda: SmallResNet(4)}}}}
    monkeypatch.setitem(sys.modules, "robustbench", ModuleType("robustbench"))
    monkeypatch.setitem(sys.modules, "robustbench.model_zoo", SimpleNamespace(model_dicts=models))
    monkeypatch.setitem(sys.modules, "robustbench.utils", SimpleNamespace(load_model=load))
    return asked


def test_a_model_of_robustbench_comes_from_its_own_loader(zoo: dict[str, Any]) -> None:
    assert small("robustbench:Carmon2019Unlabeled").trained
    assert zoo == {"model_name": "Carmon2019Unlabeled", "dataset": "cifar10", "threat_model": "Linf"}


def test_an_unknown_model_of_robustbench_is_answered_with_the_nearest(zoo: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="Did you mean 'Carmon2019Unlabeled'"):
        small("robustbench:Carmon2019")
    with pytest.raises(InputError, match="Known: cifar10"):
        small("robustbench:Carmon2019Unlabeled,dataset=mnist")


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module.model."])
@pytest.mark.parametrize("around", [None, "state_dict", "model", "net", "last"])
def test_checkpoints_in_all_spellings_of_robustbench_are_read(
    prefix: str, around: str | None, zoo: dict[str, Any], tmp_path: Path
) -> None:
    network = SmallResNet(4)
    weights: dict[str, Any] = {prefix + key: value for key, value in network.state_dict().items()}
    file = tmp_path / "checkpoint.pt"
    torch.save({around: weights, "epoch": 3, "best": {"x": torch.ones(1)}} if around else weights, file)
    model = small("robustbench:Carmon2019Unlabeled", weights=file)
    assert zoo == {}
    assert model.trained
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES, STREAMS), network.eval()(IMAGES))


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    network = nn.Sequential()
    network.add_module("model", nn.Linear(2, 2))
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    load_weights(network, tmp_path / "w.safetensors")


class TestTimm:
    def test_a_local_folder_is_loaded_and_named_without_its_path(self, timm_folder: Path) -> None:
        model = small(f"timm:local-dir:{timm_folder},pretrained=true")
        assert model.trained
        text, _ = model_text(Setting("photos", f"timm:local-dir:{timm_folder},pretrained=true"))
        assert text.startswith(f"timm:local-dir:{timm_folder.name}@")
        assert str(timm_folder.parent) not in text

    def test_pretrained_weights_for_other_classes_are_refused(self, timm_folder: Path) -> None:
        with pytest.raises(InputError, match=r"data set's 7 classes, but timm:.* answers with 4"):
            load_model(f"timm:local-dir:{timm_folder},pretrained=true", num_classes=7, image_shape=(3, 32, 32))

    def test_a_folder_of_images_is_prepared_as_its_configuration_says(self, timm_folder: Path) -> None:
        model = f"timm:local-dir:{timm_folder},pretrained=true"
        assert preparation_of(model) == {"resize": "40", "crop": "32", "interpolation": "bicubic"}
        assert data_text("folder:x,train=0.3", model) == "folder:x,crop=32,interpolation=bicubic,resize=40,train=0.3"

    def test_what_the_user_says_of_the_preparation_counts(self, timm_folder: Path) -> None:
        model = f"timm:local-dir:{timm_folder},pretrained=true"
        assert data_text("folder:x,resize=64", model) == "folder:x,resize=64"
        assert data_text("photos", model) == "photos"

    @pytest.mark.parametrize("model", ["timm:resnet18", "resnet20", "timm:no-such-model,pretrained=true"])
    def test_a_model_without_weights_of_timm_says_nothing_of_it(self, model: str) -> None:
        assert data_text("folder:x", model) == "folder:x"


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network of timm in a folder, as its hub has them."""
    timm = pytest.importorskip("timm", reason="needs the extra timm")
    folder = tmp_path_factory.mktemp("timm")
    network = timm.create_model("test_resnet", num_classes=4)
    save_file(network.state_dict(), folder / "model.safetensors")
    settings = {"input_size": [3, 32, 32], "crop_pct": 0.8, "interpolation": "bicubic", "num_classes": 4}
    settings |= {"mean": [0.5] * 3, "std": [0.5] * 3, "first_conv": "conv1.0", "classifier": "fc"}
    config = {"architecture": "test_resnet", "num_classes": 4, "pretrained_cfg": settings}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_interpolation_is_part_of_the_data_and_the_fingerprint_of_others_stays(tmp_path: Path) -> None:
    from PIL import Image

    for name in "ab":
        (tmp_path / name).mkdir()
        Image.effect_noise((20, 20), 80).convert("RGB").save(tmp_path / name / "0.png")
        Image.effect_noise((20, 20), 40).convert("RGB").save(tmp_path / name / "1.png")
    by_default, linear, cubic = (
        load_dataset(f"folder:{tmp_path},resize=12{more}")
        for more in ("", ",interpolation=bilinear", ",interpolation=bicubic")
    )
    assert by_default.test.fingerprint == linear.test.fingerprint != cubic.test.fingerprint
    assert not torch.equal(linear.test.load(torch.arange(4)), cubic.test.load(torch.arange(4)))


class TestClasses:
    def test_a_model_of_more_classes_is_judged_on_those_of_the_data_set(self, tmp_path: Path) -> None:
        file = self.names(tmp_path)
        weights = tmp_path / "w.safetensors"
        whole = load_model("resnet20", num_classes=6, image_shape=(3, 32, 32))
        save_file({key: value.contiguous() for key, value in whole.network.state_dict().items()}, weights)
        part = load_model(
            f"resnet20:classes={file}", num_classes=2, image_shape=(3, 32, 32), class_names=("e", "b"), weights=weights
        )
        with torch.no_grad():
            assert torch.equal(part(IMAGES, STREAMS), whole(IMAGES, STREAMS)[:, [4, 1]])

    @pytest.mark.parametrize(
        ("lines", "classes", "message"),
        [
            ("a\nb\nc", ("a", "x"), r"1 are missing, such as \['x'\]"),
            ("a\nb\na", ("a", "b"), "each once"),
            ("", ("a", "b"), "each once"),
            (None, ("a", "b"), "names? a file"),
        ],
    )
    def test_what_is_wrong_with_the_file_is_said(
        self, lines: str | None, classes: tuple[str, ...], message: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "names.txt"
        if lines is not None:
            file.write_text(lines)
        with pytest.raises(InputError, match=message):
            load_model(f"resnet20:classes={file}", num_classes=2, image_shape=(3, 32, 32), class_names=classes)

    def test_a_model_of_more_classes_than_the_file_names_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "acme_seven.py").write_text(
            "from bench.models.nets import SmallResNet\n\ndef make():\n    return SmallResNet(7)\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        text = f"python:acme_seven:make,classes={self.names(tmp_path)}"
        with pytest.raises(InputError, match="answers with 7"):
            load_model(text, num_classes=2, image_shape=(3, 32, 32), class_names=("e", "b"))

    def test_records_name_the_file_by_its_content(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = self.names(tmp_path)
        text, files = model_text(Setting("photos", f"resnet20:classes={file}"))
        assert text.startswith("resnet20:classes=names.txt@")
        assert list(files.values()) == [file]
        monkeypatch.chdir(tmp_path)
        cell = Cell("photos", text, "fgsm", "none", "oblivious")
        assert setting_of(cell, None, None, "cpu").model == "resnet20:classes=names.txt"

    def names(self, folder: Path) -> Path:
        file = folder / "names.txt"
        file.write_text("a\nb\nc\nd\ne\nf\n")
        return file


def test_onnx_is_refused_with_the_reason_and_the_way_out() -> None:
    with pytest.raises(InputError, match=r"no gradients.*bench\.evaluate takes any function"):
        small("onnx:model.onnx")


def test_a_function_that_raises_is_named_with_the_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_raises.py").write_text("def make():\n    raise KeyError('weights')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"python:acme_raises:make failed: KeyError: 'weights' \(acme_raises\.py:2\)"):
        small("python:acme_raises:make")


def test_logits_in_an_object_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "acme_object.py").write_text(
        "from types import SimpleNamespace\nfrom torch import nn\n\nclass Net(nn.Module):\n"
        "    def forward(self, images):\n        return SimpleNamespace(logits=images.mean((2, 3)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = load_model("python:acme_object:Net", num_classes=3, image_shape=(3, 32, 32))
    logits: Tensor = model(IMAGES, STREAMS)
    assert torch.equal(logits, IMAGES.mean((2, 3)))
