"""Data sets: what they hold, how images are chosen from them, and what is said where they cannot be had."""

from __future__ import annotations

import gzip
import os
import re
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.contracts import InputError
from bench.data import content as contents
from bench.data import photos as photographs
from bench.data.load import DATASETS, Split, choose, fingerprint, load_dataset
from bench.data.pixels import Preparation


def image_file(path: Path, size: tuple[int, int] = (12, 10), mode: str = "RGB", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode=None).save(path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes: four images of a dog, two of a cat (one of them grey)."""
    for number in range(4):
        image_file(tmp_path / "dog" / f"{number}.png", seed=number)
    image_file(tmp_path / "cat" / "0.png", seed=5)
    image_file(tmp_path / "cat" / "deeper" / "1.PNG", mode="L", seed=6)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def labelled(*counts: int) -> Split:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return Split(labels, lambda indices: indices.to(torch.uint8).view(-1, 1, 1, 1))


class TestPhotos:
    def test_ten_classes_have_exactly_as_many_crops_as_asked_for(self) -> None:
        data = load_dataset("photos:train=7,test=5")
        assert len(data.classes) == 10
        assert data.train.labels.bincount().tolist() == [7] * 10
        assert data.test.labels.bincount().tolist() == [5] * 10
        assert data.image_shape == (3, 32, 32)

    def test_training_and_evaluation_crops_come_from_images_without_a_common_pixel(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        marked = np.zeros((320, 500, 3), np.uint8)
        marked[:, 340:] = 255
        Image.fromarray(marked).save(tmp_path / "marked.png")
        monkeypatch.setattr(photographs, "PHOTOGRAPHS", {"marked": ("here", "marked.png")})
        monkeypatch.setattr(photographs, "shipped", lambda package, path: tmp_path / path)
        data = photographs.photos(train=5000, test=5000)
        assert data.train.load(torch.arange(5000)).max() == 0
        assert data.test.load(torch.arange(5000)).min() == 1

    def test_each_crop_is_found_in_its_part_of_its_photograph(self) -> None:
        data = load_dataset("photos:train=1,test=2")
        left, right = photographs._parts("cat", 160)
        for split, part, index in ((data.train, left, 1), (data.test, right, 3)):
            crop = (split.load(torch.tensor([index]))[0] * 255).to(torch.uint8).permute(1, 2, 0).numpy()
            places = np.argwhere((part[:-31, :-31] == crop[0, 0]).all(2))
            assert any((part[y : y + 32, x : x + 32] == crop).all() for y, x in places)

    def test_no_crop_comes_twice(self) -> None:
        split = load_dataset("photos:test=300").test
        crops = split.load(torch.arange(300)).flatten(1)
        assert len(crops.unique(dim=0)) == 300

    def test_positions_change_with_the_seed_only(self) -> None:
        first, again, other = (load_dataset(f"photos:seed={seed}").test for seed in (0, 0, 1))
        some = torch.tensor([999, 3, 500])
        assert torch.equal(first.load(some), again.load(some))
        assert not torch.equal(first.load(some), other.load(some))

    def test_more_crops_contain_the_fewer(self) -> None:
        few, many = load_dataset("photos:test=3").test, load_dataset("photos:test=5").test
        assert torch.equal(few.load(torch.tensor([3, 4, 5])), many.load(torch.tensor([5, 6, 7])))

    def test_large_crops_need_the_side_that_the_error_names(self) -> None:
        with pytest.raises(InputError, match="side=700"):
            load_dataset("photos:crop=224")
        assert load_dataset("photos:crop=224,side=700,train=1,test=1").image_shape == (3, 224, 224)

    @pytest.mark.parametrize("wrong", ["crop=225", "crop=0", "test=0", "side=0", "seed=-1", "test=100000", "crop=x"])
    def test_a_parameter_out_of_range_is_refused(self, wrong: str) -> None:
        with pytest.raises(InputError):
            load_dataset(f"photos:{wrong}")

    def test_a_photograph_that_is_not_installed_is_named(self) -> None:
        with pytest.raises(InputError, match=r"nothing\.png.*skimage"):
            photographs.shipped("skimage", "data/nothing.png")


class TestDigits:
    def test_digits_are_grey_and_as_large_as_asked_for(self) -> None:
        assert load_dataset("digits").image_shape == (1, 8, 8)
        assert load_dataset("digits:size=28").image_shape == (1, 28, 28)

    def test_digits_are_the_images_of_scikit_learn_in_two_parts(self) -> None:
        from sklearn.datasets import load_digits

        data, original = load_dataset("digits"), load_digits()
        images = torch.cat([split.load(torch.arange(len(split))) for split in (data.train, data.test)])
        labels = torch.cat([data.train.labels, data.test.labels])
        assert labels.tolist() == original.target.tolist()
        assert torch.allclose(images[:, 0], torch.from_numpy(original.images).float() / 16, atol=0.5 / 255 + 1e-6)

    def test_digits_are_never_made_smaller(self) -> None:
        with pytest.raises(InputError, match="from 8"):
            load_dataset("digits:size=7")


class TestChoice:
    @pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
    def test_classes_differ_by_at_most_one_image(self, count: int) -> None:
        split = labelled(50, 40, 60)
        shares = split.labels[choose(split, count)].bincount(minlength=3)
        assert shares.sum() == count
        assert shares.max() - shares.min() <= 1

    def test_a_class_with_too_few_images_gives_all_of_them(self) -> None:
        split = labelled(2, 40, 40)
        assert split.labels[choose(split, 22)].bincount().tolist() == [2, 10, 10]

    def test_a_smaller_choice_is_part_of_every_larger_one(self) -> None:
        split = labelled(20, 30, 25)
        choices = [set(choose(split, count, seed=3).tolist()) for count in range(1, 76)]
        assert all(smaller < larger for smaller, larger in pairwise(choices))

    def test_a_choice_is_sorted_fixed_and_another_for_another_seed(self) -> None:
        split = labelled(50, 50)
        chosen = choose(split, 20, seed=1)
        assert torch.equal(chosen, chosen.sort().values)
        assert torch.equal(chosen, choose(split, 20, seed=1))
        assert not torch.equal(chosen, choose(split, 20, seed=2))

    def test_no_count_means_everything(self) -> None:
        assert torch.equal(choose(labelled(3, 4), None), torch.arange(7))

    @pytest.mark.parametrize("count", [0, -1, 8])
    def test_more_images_than_there_are_or_none_are_refused(self, count: int) -> None:
        with pytest.raises(InputError, match="from 1 to 7"):
            choose(labelled(3, 4), count)

    def test_a_negative_seed_is_refused(self) -> None:
        with pytest.raises(InputError, match="seed from 0"):
            choose(labelled(3, 4), 2, seed=-1)


class TestSplit:
    def test_only_the_images_that_are_asked_for_are_read(self) -> None:
        asked: list[list[int]] = []

        def read(indices: torch.Tensor) -> torch.Tensor:
            asked.append(indices.tolist())
            return torch.zeros(len(indices), 1, 2, 2, dtype=torch.uint8)

        Split(torch.zeros(9, dtype=torch.int64), read).load(torch.tensor([4, 2]))
        assert asked == [[4, 2]]

    @pytest.mark.parametrize("indices", [[], [7], [-1]])
    def test_an_index_that_does_not_exist_is_refused(self, indices: list[int]) -> None:
        with pytest.raises(InputError):
            labelled(3, 4).load(torch.tensor(indices, dtype=torch.int64))

    def test_255_becomes_one(self) -> None:
        split = Split(torch.tensor([0]), lambda indices: torch.full((1, 1, 1, 1), 255, dtype=torch.uint8))
        assert split.load(torch.tensor([0])).item() == 1

    def test_labels_that_come_late_are_asked_for_once(self) -> None:
        asked: list[int] = []

        def labels() -> torch.Tensor:
            asked.append(1)
            return torch.tensor([0, 1])

        split = Split(labels, lambda indices: torch.zeros(len(indices), 1, 1, 1, dtype=torch.uint8))
        assert not asked
        assert len(split) == len(split.labels) == 2
        assert asked == [1]


class TestFingerprint:
    def test_a_pixel_a_label_the_order_or_the_shape_changes_it(self) -> None:
        images, labels = torch.rand(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)), torch.arange(4)
        pixel, relabelled = images.clone(), labels.clone()
        pixel[2, 1, 0, 0] = 1 - pixel[2, 1, 0, 0]
        relabelled[3] = 0
        prints = {
            fingerprint(images, labels),
            fingerprint(pixel, labels),
            fingerprint(images, relabelled),
            fingerprint(images.flip(0), labels.flip(0)),
            fingerprint(images.reshape(4, 5, 5, 3), labels),
        }
        assert len(prints) == 5

    def test_what_is_below_eight_bits_does_not_change_it(self) -> None:
        images, labels = torch.full((1, 1, 2, 2), 100 / 255), torch.tensor([0])
        assert fingerprint(images, labels) == fingerprint(images + 1e-5, labels)

    def test_the_default_images_are_the_ones_that_results_are_published_on(self) -> None:
        split = load_dataset("photos").test
        means = split.load(choose(split, 100)).reshape(10, -1).mean(1)
        expected = [0.2787, 0.5195, 0.6898, 0.4340, 0.1643, 0.0843, 0.7104, 0.4221, 0.3664, 0.1974]
        assert means.tolist() == pytest.approx(expected, abs=0.002)  # decoders of JPEG differ in the last bit


class TestFolder:
    def test_classes_are_alphabetical_and_all_images_are_for_evaluation(self, images: Path) -> None:
        data = load_dataset(f"folder:{images}")
        assert data.classes == ("cat", "dog")
        assert data.test.labels.tolist() == [0, 0, 1, 1, 1, 1]
        assert len(data.train) == 0

    def test_pixels_are_those_of_the_file_and_grey_becomes_colour(self, images: Path) -> None:
        loaded = load_dataset(f"folder:{images}").test.load(torch.tensor([2, 1]))
        original = np.asarray(Image.open(images / "dog" / "0.png")).transpose(2, 0, 1)
        assert loaded.shape == (2, 3, 10, 12)
        assert torch.equal(loaded[0], torch.from_numpy(original.copy()).float() / 255)
        assert torch.equal(loaded[1, 0], loaded[1, 2])

    def test_colour_becomes_grey_where_one_channel_is_asked_for(self, images: Path) -> None:
        assert load_dataset(f"folder:{images},channels=1").image_shape == (1, 10, 12)

    def test_resize_and_crop_are_those_of_torchvision(self, tmp_path: Path) -> None:
        from torchvision import transforms

        for number, size in enumerate([(100, 75), (61, 90), (50, 50)]):
            with Image.open(image_file(tmp_path / f"{number}.png", size)) as image:
                expected = transforms.CenterCrop(24)(transforms.Resize(32)(image))
                assert np.array_equal(Preparation(32, 24)(image), np.asarray(expected).transpose(2, 0, 1))

    def test_a_share_for_training_is_stratified_seeded_and_disjoint(self, images: Path) -> None:
        data, other = (load_dataset(f"folder:{images},train=0.5,seed={seed}") for seed in (0, 1))
        assert data.train.labels.tolist() == [0, 1, 1]
        assert data.test.labels.tolist() == [0, 1, 1]
        parts = [data.train.load(torch.arange(3)), data.test.load(torch.arange(3))]
        assert len(torch.cat(parts).flatten(1).unique(dim=0)) == 6
        assert not torch.equal(parts[0], other.train.load(torch.arange(3)))

    def test_a_share_never_takes_a_class_away_from_evaluation(self, images: Path) -> None:
        assert load_dataset(f"folder:{images},train=0.99").test.labels.tolist() == [0, 1]

    @pytest.mark.parametrize("name", ["test", "val"])
    def test_folders_for_training_and_evaluation_are_the_splits(self, tmp_path: Path, name: str) -> None:
        for part, count in (("train", 3), (name, 2)):
            for number in range(count):
                for label in ("a", "b"):
                    seed = int.from_bytes(f"{part}{number}{label}".encode(), "big")
                    image_file(tmp_path / part / label / f"{number}.png", seed=seed)
        data = load_dataset(f"folder:{tmp_path}")
        assert (len(data.train), len(data.test)) == (6, 4)

    def test_a_second_folder_may_be_for_training_if_its_classes_are_the_same(
        self, images: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        second = tmp_path_factory.mktemp("second")
        image_file(second / "cat" / "0.png", seed=7)
        image_file(second / "horse" / "0.png", seed=8)
        with pytest.raises(InputError, match="dog, horse"):
            load_dataset(f"folder:{images},train={second}")
        (second / "horse").rename(second / "dog")
        assert len(load_dataset(f"folder:{images},train={second}").train) == 2
        with pytest.raises(InputError, match="cannot be for training and for evaluation"):
            load_dataset(f"folder:{images},train={images}")

    def test_images_of_several_sizes_need_resize_and_crop(self, images: Path) -> None:
        image_file(images / "dog" / "9.png", size=(30, 20))
        with pytest.raises(InputError, match="resize="):
            load_dataset(f"folder:{images}").test.load(torch.arange(7))
        assert load_dataset(f"folder:{images},resize=8,crop=8").test.load(torch.arange(7)).shape == (7, 3, 8, 8)

    def test_a_crop_larger_than_an_image_names_the_image(self, images: Path) -> None:
        with pytest.raises(InputError, match=r"cat.0\.png.*crop=11"):
            load_dataset(f"folder:{images},crop=11").test.load(torch.tensor([0]))

    @pytest.mark.parametrize("kept", [0, 40, 200])
    def test_a_broken_image_is_named(self, images: Path, kept: int) -> None:
        file = images / "dog" / "1.png"
        file.write_bytes(file.read_bytes()[:kept])
        split = load_dataset(f"folder:{images}").test
        split.load(torch.tensor([0, 1, 2]))
        with pytest.raises(InputError, match=r"dog.1\.png"):
            split.load(torch.arange(6))

    def test_a_class_without_images_is_named(self, images: Path) -> None:
        (images / "bird").mkdir()
        with pytest.raises(InputError, match="none for bird"):
            load_dataset(f"folder:{images}")

    def test_a_folder_that_is_missing_empty_or_of_one_class_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no folder"):
            load_dataset(f"folder:{tmp_path / 'nowhere'}")
        with pytest.raises(InputError, match="holds 0"):
            load_dataset(f"folder:{tmp_path}")
        image_file(tmp_path / "only" / "0.png")
        with pytest.raises(InputError, match="holds 1"):
            load_dataset(f"folder:{tmp_path}")

    @pytest.mark.parametrize(
        "wrong", ["crop=0", "resize=8,crop=9", "channels=2", "train=1", "train=-0.1", "train=gone"]
    )
    def test_a_parameter_out_of_range_is_refused(self, images: Path, wrong: str) -> None:
        with pytest.raises(InputError):
            load_dataset(f"folder:{images},{wrong}")


class TestWhichImages:
    def test_what_begins_with_a_dot_and_what_macos_adds_is_no_image(self, images: Path) -> None:
        before = load_dataset(f"folder:{images}")
        image_file(images / "dog" / ".ipynb_checkpoints" / "0-checkpoint.png")
        image_file(images / "dog" / "__MACOSX" / "0.png")
        image_file(images / "__MACOSX" / "0.png")
        image_file(images / ".thumbnails" / "0.png")
        (images / "dog" / "._0.png").write_bytes(b"\0\5\26\7")
        (images / "dog" / "Thumbs.db").write_bytes(b"no image")
        after = load_dataset(f"folder:{images}")
        assert after.classes == before.classes
        assert torch.equal(after.test.labels, before.test.labels)
        assert after.name == before.name

    def test_linked_files_and_folders_are_followed_and_each_folder_once(
        self, images: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        other = tmp_path_factory.mktemp("other")
        image_file(other / "elsewhere" / "8.png", seed=8)
        image_file(other / "9.png", seed=9)
        (images / "dog" / "link.png").symlink_to(other / "9.png")
        (images / "dog" / "linked").symlink_to(other / "elsewhere")
        (images / "dog" / "linked-again").symlink_to(other / "elsewhere")
        (images / "dog" / "loop").symlink_to(images / "dog")
        (images / "dog" / "up").symlink_to(images)
        (images / "dog" / "neighbour").symlink_to(images / "cat")
        assert load_dataset(f"folder:{images}").test.labels.bincount().tolist() == [2, 6]

    def test_numbers_in_the_order_of_text_bring_a_warning(self, tmp_path: Path) -> None:
        for name in ("1", "2", "10"):
            image_file(tmp_path / name / "0.png")
        data = load_dataset(f"folder:{tmp_path}")
        assert data.classes == ("1", "10", "2")
        assert "1, 10, 2" in data.warnings[0]
        (tmp_path / "1").rename(tmp_path / "01")
        (tmp_path / "2").rename(tmp_path / "02")
        assert not load_dataset(f"folder:{tmp_path}").warnings

    def test_one_folder_under_two_names_is_refused(self, images: Path) -> None:
        (images / "wolf").symlink_to(images / "dog")
        with pytest.raises(InputError, match="two names"):
            load_dataset(f"folder:{images}")

    def test_images_of_other_formats_bring_a_warning(self, images: Path) -> None:
        (images / "dog" / "x.HEIC").write_bytes(b"")
        (images / "cat" / "deeper" / "y.npy").write_bytes(b"")
        (warning,) = load_dataset(f"folder:{images}").warnings
        assert re.search(r"2 files .* left out.*cat/deeper/y\.npy, dog/x\.HEIC", warning)

    @pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
    def test_a_copy_of_a_training_image_is_refused_whatever_its_name_and_format(
        self, ending: str, images: Path
    ) -> None:
        with Image.open(images / "dog" / "0.png") as original:
            for number in range(4):
                original.save(images / "cat" / f"copy{number}.{ending}")
        with pytest.raises(InputError, match=r"shows the same pixels as .*\d\."):
            load_dataset(f"folder:{images},train=0.5")
        assert len(load_dataset(f"folder:{images}").test) == 10

    def test_a_folder_whose_path_holds_a_comma_says_how_to_pass_it(self, images: Path) -> None:
        odd = images / "a,b=c"
        odd.mkdir()
        with pytest.raises(InputError, match="ln -s"):
            load_dataset(f"folder:{odd},train=0.5")


class TestContent:
    def test_the_fingerprint_of_training_images_sees_each_of_them(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            for number in range(100):
                image_file(tmp_path / part / "ab"[number % 2] / f"{number}.png", (4, 4), seed=len(part) * 1000 + number)
        prints = {load_dataset(f"folder:{tmp_path}").train.fingerprint}
        for number in (0, 37, 99):
            image_file(tmp_path / "train" / "ab"[number % 2] / f"{number}.png", (4, 4), seed=number)
            prints.add(load_dataset(f"folder:{tmp_path}").train.fingerprint)
        prints.add(load_dataset(f"folder:{tmp_path},resize=3,crop=3").train.fingerprint)
        assert len(prints) == 5
        assert all(text.startswith("100 ") for text in prints)

    def test_the_fingerprint_of_images_in_memory_sees_pixels_and_labels(self) -> None:
        def print_of(pixels: torch.Tensor, labels: torch.Tensor) -> str:
            return Split(labels, pixels.__getitem__).fingerprint

        pixels, labels = torch.zeros(5000, 1, 2, 2, dtype=torch.uint8), torch.arange(5000) % 2
        changed = pixels.clone()
        changed[4999, 0, 1, 1] = 1
        assert len({print_of(pixels, labels), print_of(changed, labels), print_of(pixels, 1 - labels)}) == 3
        assert print_of(pixels[:0], labels[:0]) == "0 none"

    def test_a_file_is_read_again_only_when_it_has_changed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(contents, "_SETTLED", 0)
        read: list[str] = []

        def hash_of(path: Path) -> str:
            read.append(path.name)
            return path.read_text()

        def hashes() -> list[str]:
            return contents.FileHashes(tmp_path, ["x", "y"]).take(hash_of)

        (tmp_path / "x").write_text("1")
        (tmp_path / "y").write_text("2")
        assert hashes() == hashes() == ["1", "2"]
        assert sorted(read) == ["x", "y"]
        times = (tmp_path / "x").stat()
        (tmp_path / "x").write_text("3")
        os.utime(tmp_path / "x", ns=(times.st_atime_ns, times.st_mtime_ns))
        assert hashes() == ["3", "2"]
        assert sorted(read) == ["x", "x", "y"]
        for memory in (tmp_path / "cache" / "hashes").iterdir():
            memory.write_bytes(memory.read_bytes().replace(b'"3"', b'"4"'))
        assert hashes() == ["3", "2"]

    def test_a_name_says_which_images_a_folder_holds_and_not_where_it_is(self, images: Path) -> None:
        name = load_dataset(f"folder:{images},train=0.50,crop=8").name
        (images / "dog").rename(images / "wolf")
        other = load_dataset(f"folder:{images},name=test,crop=8,train=0.5").name
        pattern = r"folder:([\w-]+)@[0-9a-f]{8},crop=8,train=0\.5"
        assert re.fullmatch(pattern, name)
        assert re.fullmatch(pattern, other)
        assert name.split("@")[1] != other.split("@")[1]
        assert other.startswith("folder:test@")

    def test_a_folder_whose_name_is_not_utf8_has_a_name_that_can_be_written(self, images: Path) -> None:
        odd = images / os.fsdecode(b"d\xff")
        for name in ("a", "b"):
            image_file(odd / name / "0.png")
        data = load_dataset(f"folder:{odd}")
        assert data.name.encode().decode().startswith("folder:d\ufffd@")
        assert data.test.load(torch.arange(2)).shape == (2, 3, 10, 12)

    def test_the_root_folder_of_torchvision_is_not_part_of_a_name(self, tmp_path: Path) -> None:
        torch.save(({"n01": ("tench",), "n02": ("goldfish",)}, ["n01", "n02"]), tmp_path / "meta.bin")
        for wnid in ("n01", "n02"):
            image_file(tmp_path / "val" / wnid / "0.jpeg", (300, 260))
            image_file(tmp_path / "train" / wnid / "0.jpeg", (300, 260))
        data = load_dataset(f"imagenet:root={tmp_path}")
        assert data.name == "imagenet"
        before = data.train.fingerprint
        image_file(tmp_path / "train" / "n02" / "0.jpeg", (300, 260), seed=1)
        assert load_dataset(f"imagenet:root={tmp_path}").train.fingerprint != before


class TestNames:
    def test_the_name_is_canonical(self) -> None:
        assert load_dataset("photos:test=3, crop=16").name == "photos:crop=16,test=3"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("phots", "Did you mean 'photos'"),
            ("photos:crp=3", "Did you mean 'crop'"),
            ("photos:64", "photos:key=value"),
            ("folder", "folder:PATH"),
        ],
    )
    def test_a_wrong_name_is_answered_with_the_right_one(self, text: str, told: str) -> None:
        with pytest.raises(InputError, match=told):
            load_dataset(text)


class TestTorchvision:
    """What torchvision has: here only with files that look like its own, never with a network."""

    @pytest.fixture(autouse=True)
    def _no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError("no network")

        monkeypatch.setattr("urllib.request.urlopen", refuse)
        monkeypatch.setattr("torchvision.datasets.utils._urlretrieve", refuse)

    @pytest.mark.parametrize("name", sorted(set(DATASETS) - {"photos", "digits", "folder"}))
    def test_absent_data_say_where_they_belong(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="belong there") as raised:
            len(load_dataset(f"{name}:root={tmp_path}").test)
        assert str(tmp_path) in str(raised.value)

    def test_mnist_is_read_from_its_files(self, tmp_path: Path) -> None:
        raw = tmp_path / "MNIST" / "raw"
        raw.mkdir(parents=True)
        pixels = np.arange(3 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(3, 28, 28)
        for part, count in (("train", 2), ("t10k", 3)):
            images = struct.pack(">IIII", 0x803, count, 28, 28) + pixels[:count].tobytes()
            labels = struct.pack(">II", 0x801, count) + bytes([7, 0, 1][:count])
            for kind, content in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
                (raw / f"{part}-{kind}").write_bytes(content)
                (raw / f"{part}-{kind}.gz").write_bytes(gzip.compress(content))
        data = load_dataset(f"mnist:root={tmp_path}")
        assert (len(data.train), len(data.test), len(data.classes)) == (2, 3, 10)
        assert data.test.labels.tolist() == [7, 0, 1]
        loaded = data.test.load(torch.tensor([2, 0]))
        assert torch.equal(loaded[:, 0], torch.from_numpy(pixels[[2, 0]]).float() / 255)

    def test_gtsrb_needs_no_training_images_for_evaluation(self, tmp_path: Path) -> None:
        base = tmp_path / "gtsrb"
        for number, size in enumerate([(40, 50), (33, 32)]):
            image_file(base / "GTSRB" / "Final_Test" / "Images" / f"{number}.ppm", size)
        (base / "GT-final_test.csv").write_text("Filename;Width;ClassId\n0.ppm;40;16\n1.ppm;33;1\n")
        data = load_dataset(f"gtsrb:root={tmp_path}")
        assert data.test.labels.tolist() == [16, 1]
        assert data.test.load(torch.tensor([0, 1])).shape == (2, 3, 32, 32)
        with pytest.raises(InputError, match="belong there"):
            len(data.train)

    def test_imagenet_is_read_in_its_usual_size(self, tmp_path: Path) -> None:
        torch.save(({"n01": ("tench", "fish"), "n02": ("goldfish",)}, ["n01", "n02"]), tmp_path / "meta.bin")
        for wnid in ("n01", "n02"):
            image_file(tmp_path / "val" / wnid / "0.jpeg", (300, 260))
        data = load_dataset(f"imagenet:root={tmp_path}")
        assert data.classes == ("tench", "goldfish")
        assert data.image_shape == (3, 224, 224)
        assert data.test.labels.tolist() == [0, 1]


def test_with_one_image_a_class_a_share_of_the_classes_is_for_training(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"class{number}").mkdir()
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"class{number}" / "x.png")
    data = load_dataset(f"folder:{tmp_path},train=0.3")
    assert (len(data.train), len(data.test)) == (3, 7)
    assert not set(data.train.labels.tolist()) & set(data.test.labels.tolist())
