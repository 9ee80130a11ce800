"""Models: what they answer, what they are loaded from, and what is said where something does not fit."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.augment import scaled_crops
from bench.contracts import Classifier, InputError, Streams
from bench.data.load import choose, load_dataset
from bench.models import Net, canonical_model, load_model, model_fingerprint, weights_fingerprint
from bench.models import load as models
from bench.models.nets import MnistCNN, ResNet20, SmallResNet
from bench.training import fit, private_randomness

from ..toys import tool

small = partial(load_model, num_classes=10, image_shape=(3, 32, 32))


def some_images(count: int = 4, *shape: int) -> Tensor:
    return torch.rand(count, *(shape or (3, 32, 32)), generator=torch.Generator().manual_seed(0))


def accuracy(model: Classifier, text: str, count: int | None) -> float:
    split = load_dataset(text).test
    chosen = choose(split, count)
    with torch.no_grad():
        hits = [model(split.load(rows)).argmax(1) == split.labels[rows] for rows in chosen.split(100)]
    return float(torch.cat(hits).float().mean())


class TestNetworks:
    def test_resnet20_has_the_weights_and_shortcuts_of_the_paper(self) -> None:
        network = ResNet20(10)
        assert sum(weight.numel() for weight in network.parameters()) == 269_722
        features = torch.arange(2.0 * 16 * 4 * 4).view(2, 16, 4, 4)
        shortcut = network.layer2[0].shortcut(features)
        assert shortcut.shape == (2, 32, 2, 2)
        assert torch.equal(shortcut[:, 8:24], features[:, :, ::2, ::2])
        assert not shortcut[:, :8].any()
        assert not shortcut[:, 24:].any()

    def test_mnist_cnn_has_the_layers_of_the_paper(self) -> None:
        network = MnistCNN(10)
        assert network.linear1.in_features == 9216
        assert network.conv1.weight.shape == (32, 1, 3, 3)
        assert network.conv2.weight.shape == (64, 32, 3, 3)
        assert network.linear2.weight.shape == (10, 128)

    def test_the_small_net_stays_small(self) -> None:
        assert sum(weight.numel() for weight in SmallResNet(10).parameters()) < 310_000
        assert (Path(models.__file__).parent.parent / "weights" / "photos-cnn.safetensors").stat().st_size < 1_500_000

    @pytest.mark.parametrize("size", [32, 64])
    def test_convolutional_nets_read_images_of_several_sizes(self, size: int) -> None:
        images = some_images(2, 3, size, size)
        for network in (SmallResNet(7), ResNet20(7)):
            assert network.eval()(images).shape == (2, 7)


class TestPhotosCnn:
    def test_it_classifies_at_least_93_percent_of_the_evaluation_crops(self) -> None:
        assert accuracy(small("photos-cnn"), "photos", 300) >= 0.93

    def test_its_answers_are_confident_but_not_saturated(self) -> None:
        split = load_dataset("photos").test
        with torch.no_grad():
            likely = small("photos-cnn")(split.load(choose(split, 200))).softmax(1).amax(1)
        assert 0.9 < likely.median() < 0.9999

    def test_it_is_frozen_in_evaluation_mode_and_gives_gradients_for_images(self) -> None:
        model = small("photos-cnn")
        images = some_images().requires_grad_()
        (gradient,) = torch.autograd.grad(model(images).sum(), images)
        assert not model.training
        assert not any(weight.requires_grad for weight in model.parameters())
        assert gradient.flatten(1).any(1).all()

    def test_an_answer_does_not_depend_on_the_rest_of_the_batch(self) -> None:
        model, images = small("photos-cnn"), some_images(6)
        assert torch.allclose(model(images)[2:3], model(images[2:3]), atol=1e-4)

    def test_other_classes_or_channels_need_weights_of_their_own(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="data set has 5 classes"):
            load_model("photos-cnn", num_classes=5, image_shape=(3, 32, 32))
        with pytest.raises(InputError, match="1 channels"):
            load_model("photos-cnn", num_classes=10, image_shape=(1, 32, 32))
        save_file(SmallResNet(5).state_dict(), tmp_path / "five.safetensors")
        for text, weights in (("photos-cnn:trained=false", None), ("photos-cnn", tmp_path / "five.safetensors")):
            model = load_model(text, num_classes=5, image_shape=(3, 32, 32), weights=weights)
            assert model(some_images()).shape == (4, 5)


class TestNormalisation:
    def test_the_network_sees_images_less_the_mean_over_the_deviation(self) -> None:
        images = some_images()
        net = Net(nn.Flatten(), 10, (0.1, 0.2, 0.3), (0.5, 0.25, 1.0))
        normalised = net(images).view_as(images)
        for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 1.0)]):
            assert torch.allclose(normalised[:, channel], (images[:, channel] - mean) / std)

    def test_text_and_keyword_set_it_alike(self) -> None:
        by_text = small("resnet20:mean=0.5:0.4:0.3,std=0.25")
        by_keyword = small("resnet20", mean=(0.5, 0.4, 0.3), std=(0.25,))
        assert weights_fingerprint(by_text) == weights_fingerprint(by_keyword) != weights_fingerprint(small("resnet20"))

    @pytest.mark.parametrize("wrong", ["std=0", "std=0.5:0:0.5", "mean=nan", "mean=0.5:0.5", "mean=half", "std=-1"])
    def test_numbers_that_make_no_sense_are_refused(self, wrong: str) -> None:
        with pytest.raises(InputError):
            small(f"resnet20:{wrong}")

    @pytest.mark.parametrize("wrong", ["mean=123.7:116.3:103.5,std=58.4", "mean=127.5", "std=58.4:57.1:57.4"])
    def test_numbers_for_images_up_to_255_are_refused_with_the_way_out(self, wrong: str) -> None:
        with pytest.raises(InputError, match="Divide by 255"):
            small(f"resnet20:{wrong}")


class TestWeights:
    @pytest.fixture
    def weights(self) -> dict[str, Tensor]:
        with private_randomness(7):
            return ResNet20(10).state_dict()

    @pytest.mark.parametrize("wrapped", ["plain", "state_dict", "model", "module."])
    def test_a_state_dict_of_torch_is_read_as_safetensors_is(
        self, weights: dict[str, Tensor], tmp_path: Path, wrapped: str
    ) -> None:
        save_file(weights, tmp_path / "w.safetensors")
        content = {
            "plain": weights,
            "state_dict": {"state_dict": weights, "epoch": 3},
            "model": {"model": weights},
            "module.": {f"module.{name}": tensor for name, tensor in weights.items()},
        }
        torch.save(content[wrapped], tmp_path / "w.pt")
        one, other = (small("resnet20", weights=tmp_path / name) for name in ("w.safetensors", "w.pt"))
        assert weights_fingerprint(one) == weights_fingerprint(other) != weights_fingerprint(small("resnet20"))

    def test_counters_of_batches_may_be_absent(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        save_file({name: one for name, one in weights.items() if "batches" not in name}, tmp_path / "w.safetensors")
        small("resnet20", weights=tmp_path / "w.safetensors")

    def test_names_and_shapes_that_do_not_fit_are_told(self, weights: dict[str, Tensor], tmp_path: Path) -> None:
        path = tmp_path / "w.safetensors"
        renamed = {name.replace("linear.weight", "fc.weight"): tensor for name, tensor in weights.items()}
        save_file(renamed, path)
        with pytest.raises(InputError, match=r"1 absent \(linear\.weight.*1 unknown \(fc\.weight"):
            small("resnet20", weights=path)
        save_file(weights | {"linear.bias": torch.zeros(5)}, path)
        with pytest.raises(InputError, match=r"linear\.bias \(5,\) instead of \(10,\)"):
            small("resnet20", weights=path)

    @pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
    @pytest.mark.parametrize("kept", [0, 7, 5000])
    def test_a_truncated_file_is_refused(
        self, weights: dict[str, Tensor], tmp_path: Path, name: str, kept: int
    ) -> None:
        path = tmp_path / name
        save_file(weights, path) if name.endswith("safetensors") else torch.save(weights, path)
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(InputError, match="cannot be read"):
            small("resnet20", weights=path)

    def test_a_file_with_code_is_refused_and_the_code_does_not_run(self, tmp_path: Path) -> None:
        class Code:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]  # pickle takes it

        torch.save({"conv1.weight": Code()}, tmp_path / "w.pt")
        with pytest.raises(InputError, match="no pickled code"):
            small("resnet20", weights=tmp_path / "w.pt")
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("content", [[1, 2], {"a": 1}, torch.zeros(3)])
    def test_a_file_without_a_state_dict_is_refused(self, content: object, tmp_path: Path) -> None:
        torch.save(content, tmp_path / "w.pt")
        with pytest.raises(InputError, match="Expected a state dict"):
            small("resnet20", weights=tmp_path / "w.pt")

    def test_a_file_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no file .*gone\.pt"):
            small("resnet20", weights=tmp_path / "gone.pt")


class TestTrained:
    @pytest.mark.parametrize(
        ("text", "trained"),
        [
            ("photos-cnn", True),
            ("photos-cnn:trained=false", False),
            ("mnist-cnn", False),
            ("resnet20", False),
            ("resnet20:mean=0.5", False),
            ("torchvision:squeezenet1_1", False),
        ],
    )
    def test_a_model_without_weights_says_so(self, text: str, trained: bool) -> None:
        assert small(text).trained is trained

    def test_weights_from_a_file_make_it_a_trained_one(self, tmp_path: Path) -> None:
        save_file(ResNet20(10).state_dict(), tmp_path / "w.safetensors")
        assert small("resnet20", weights=tmp_path / "w.safetensors").trained

    def test_a_model_of_timm_has_weights_only_if_it_is_pretrained(self) -> None:
        pytest.importorskip("timm")
        assert not small("timm:mobilenetv2_050").trained


class TestFingerprint:
    def test_a_weight_or_a_name_changes_it_and_nothing_else(self) -> None:
        one, same = small("resnet20"), small("resnet20")
        assert weights_fingerprint(one) == weights_fingerprint(same)
        same.network.linear.bias[3] += 1e-3
        assert weights_fingerprint(one) != weights_fingerprint(same)

    def test_the_seed_of_the_initialisation_changes_it_and_the_state_of_torch_does_not(self) -> None:
        first = weights_fingerprint(small("resnet20"))
        torch.rand(3)
        assert weights_fingerprint(small("resnet20")) == first != weights_fingerprint(small("resnet20", seed=1))

    def test_the_code_of_a_python_model_and_of_what_it_imports_is_part_of_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        helper, model = tmp_path / "h1_signs.py", small("resnet20")
        (tmp_path / "h1_model.py").write_text("from h1_signs import SIGN\ndef make(): ...\n")
        prints = []
        for text in ("SIGN = 1\n", "SIGN = 1  # plus\n", "SIGN = -1\n"):
            helper.write_text(text)
            prints.append(model_fingerprint("python:h1_model:make,width=3", model))
        assert prints[0] == prints[1] != prints[2]
        assert model_fingerprint("resnet20", model) == weights_fingerprint(model)


class TestNames:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("photos-cnn:trained=False", "photos-cnn:trained=false"),
            ("resnet20:std=0.250,mean=.5:0.50:1/2", "resnet20:mean=0.5:0.5:0.5,std=0.25"),
            ("timm:vit,pad_type=same,depth=1_2,rate=1e-1", "timm:vit,depth=12,pad_type=same,rate=0.1"),
            ("python:acme.nets:make,path=a/b.PT,wide=True", "python:acme.nets:make,path=a/b.PT,wide=true"),
            ("torchvision:resnet18,weights=DEFAULT", "torchvision:resnet18,weights=DEFAULT"),
        ],
    )
    def test_a_text_has_one_spelling(self, text: str, canonical: str) -> None:
        assert canonical_model(text) == canonical_model(canonical) == canonical

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("photo-cnn", "Did you mean 'photos-cnn'"),
            ("photos-cnn:traned=false", "Did you mean 'trained'"),
            ("resnet20:big", "resnet20:key=value"),
            ("torchvision", "torchvision:NAME"),
            ("torchvision:resnet17", "Did you mean 'resnet1"),
            ("torchvision:resnet18,weights=DEFAUL", "Did you mean 'DEFAULT'"),
            ("torchvision:resnet18,weights=DEFAULT", "10 classes, but .* answers with 1000"),
            ("python", "python:ADDRESS"),
            ("python:acme.nowhere:make", "cannot be imported"),
            ("python:math:nothing", "cannot be imported"),
        ],
    )
    def test_a_wrong_text_is_answered_with_what_was_expected(self, text: str, told: str) -> None:
        with pytest.raises(InputError, match=told):
            small(text)


class TestTorchvision:
    def test_a_model_is_built_for_the_classes_and_reproducibly(self) -> None:
        one, other = (small("torchvision:squeezenet1_1") for _ in range(2))
        assert one(some_images(1)).shape == (1, 10)
        assert weights_fingerprint(one) == weights_fingerprint(other)
        assert one.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])

    def test_a_network_for_colour_reads_a_grey_image_as_three_equal_channels(self) -> None:
        colour = small("torchvision:squeezenet1_1")
        grey = load_model("torchvision:squeezenet1_1", num_classes=10, image_shape=(1, 32, 32))
        images = some_images(2, 1, 32, 32)
        assert torch.equal(grey(images), colour(images.expand(-1, 3, -1, -1)))

    def test_weights_that_cannot_be_downloaded_are_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError("no network")

        monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
        with pytest.raises(InputError, match="cannot be downloaded"):
            load_model("torchvision:squeezenet1_1,weights=DEFAULT", num_classes=1000, image_shape=(3, 224, 224))

    def test_images_that_a_model_cannot_read_are_told(self) -> None:
        with pytest.raises(InputError, match="cannot read images of 3×8×8"):
            load_model("torchvision:squeezenet1_1", num_classes=10, image_shape=(3, 8, 8))
        with pytest.raises(InputError, match="6×6"):
            load_model("mnist-cnn", num_classes=10, image_shape=(1, 4, 4))


class TestTimm:
    def test_parameters_go_to_the_constructor_and_the_normalisation_comes_from_it(self) -> None:
        pytest.importorskip("timm")
        model = small("timm:mobilenetv2_050,pad_type=same")
        assert model(some_images(2)).shape == (2, 10)
        assert type(model.network.conv_stem).__name__ == "Conv2dSame"
        assert model.mean.flatten().tolist() == pytest.approx(model.network.default_cfg["mean"])

    def test_an_unknown_model_or_parameter_is_told(self) -> None:
        pytest.importorskip("timm")
        for text in ("timm:mobilenetv9", "timm:mobilenetv2_050,colour=blue"):
            with pytest.raises(InputError, match="timm cannot make"):
                small(text)

    def test_without_timm_the_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(InputError, match=r"defense-bench\[timm\]"):
            small("timm:mobilenetv2_050")


class TestPython:
    @pytest.fixture
    def acme(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        module = ModuleType("acme_nets")
        monkeypatch.setitem(sys.modules, "acme_nets", module)
        return module

    def test_a_module_of_torch_becomes_a_classifier(self, acme: ModuleType) -> None:
        acme.make = lambda num_classes, width: nn.Sequential(  # type: ignore[attr-defined]  # made here
            nn.Flatten(), nn.Linear(3072, width), nn.Linear(width, num_classes)
        )
        model = small("python:acme_nets:make,width=4,mean=0.5")
        assert model.network[1].out_features == 4
        assert model(some_images()).shape == (4, 10)
        assert model.mean.item() == 0.5

    def test_a_finished_classifier_is_taken_as_it_is(self, acme: ModuleType) -> None:
        class Constant(Classifier):
            num_classes = 10

            def forward(self, images: Tensor, rng: Streams) -> Tensor:
                return images.new_zeros(len(images), 10)

        acme.make = Constant  # type: ignore[attr-defined]  # made here
        assert isinstance(small("python:acme_nets:make"), Constant)
        with pytest.raises(InputError, match="finished classifier"):
            small("python:acme_nets:make,mean=0.5")

    def test_what_is_no_module_or_answers_for_other_classes_is_refused(self, acme: ModuleType) -> None:
        acme.make = lambda: 3  # type: ignore[attr-defined]  # made here
        with pytest.raises(InputError, match="Expected a torch module"):
            small("python:acme_nets:make")
        acme.make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))  # type: ignore[attr-defined]  # made here
        with pytest.raises(InputError, match=r"10 classes, but .* answers with 4"):
            small("python:acme_nets:make")


class TestTraining:
    """Digits are learnt in seconds."""

    def trained(self, seed: int, rate: float = 5e-3) -> Net:
        data = load_dataset("digits:size=10").train
        with private_randomness(seed):
            net = Net(MnistCNN(10, (1, 10, 10)), 10)
        images = data.load(torch.arange(600))
        before = images.clone()
        fit(net, images, data.labels[:600], epochs=4, learning_rate=rate, seed=seed)
        assert torch.equal(images, before)
        return net

    def test_it_learns(self) -> None:
        assert accuracy(self.trained(0), "digits:size=10", 300) > 0.7
        assert accuracy(self.trained(0, rate=1e-9), "digits:size=10", 300) < 0.4

    def test_a_seed_decides_dropout_and_order_whatever_the_state_of_torch(self) -> None:
        first = self.trained(1)
        before = torch.random.get_rng_state()
        again = self.trained(1)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(5)
        assert weights_fingerprint(first) == weights_fingerprint(again) == weights_fingerprint(self.trained(1))
        assert weights_fingerprint(first) != weights_fingerprint(self.trained(2))

    def test_progress_tells_the_share_and_the_mean_loss_and_the_net_is_frozen(self) -> None:
        images, labels, told = some_images(5, 3, 16, 16), torch.arange(5), []
        net = SmallResNet(5)
        fit(
            net,
            images,
            labels,
            epochs=2,
            learning_rate=0.0,
            seed=0,
            progress=lambda share, loss: told.append((share, loss)),
        )
        assert [share for share, _ in told] == [0.5, 1.0]
        net.train()
        assert told[0][1] == pytest.approx(nn.functional.cross_entropy(net(images), labels).item(), rel=1e-4)
        assert not any(weight.requires_grad for weight in net.parameters())

    def test_the_command_writes_weights_that_photos_cnn_loads(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "new" / "w.safetensors"
        train_classifier = tool("train_classifier")
        monkeypatch.setattr(train_classifier, "CROPS", "photos:crop=48,train=3,test=1")
        monkeypatch.setattr(train_classifier, "EPOCHS", 1)
        monkeypatch.setattr(sys, "argv", ["train_classifier", "photos-cnn", "--out", str(out)])
        train_classifier.main()
        assert "accuracy" in capsys.readouterr().err
        assert weights_fingerprint(small("photos-cnn", weights=out)) != weights_fingerprint(small("photos-cnn"))

    def test_crops_are_parts_of_the_image_and_stay_in_range(self) -> None:
        images = some_images(8, 3, 48, 48)
        before = images.clone()
        crops = scaled_crops(images, torch.Generator().manual_seed(0), size=32)
        assert crops.shape == (8, 3, 32, 32)
        assert 0 <= crops.min() <= crops.max() <= 1
        assert torch.equal(images, before)
        ramp = torch.linspace(0.2, 0.8, 48).expand(50, 1, 48, 48)
        same_scale = scaled_crops(ramp, torch.Generator().manual_seed(1), size=32, zoom=(1, 1), light=0)
        steps = same_scale.diff(dim=3).flatten(1)
        assert torch.allclose(steps.abs(), torch.full_like(steps, 0.6 / 47), atol=1e-5)
        assert 10 < (steps[:, 0] > 0).sum() < 40


class TestPublished:
    """Networks with known accuracy, where their weights are at hand."""

    def test_resnet20_reaches_its_known_accuracy(self, shared: Path) -> None:
        weights = shared / "models" / "cifar10-resnet20.safetensors"
        model = small("resnet20", weights=weights)
        assert set(load_file(weights)) <= set(model.network.state_dict())
        assert accuracy(model, f"folder:{shared / 'data' / 'cifar10-500'}", None) == pytest.approx(0.94)
