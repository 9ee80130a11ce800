"""The first page: what is best, by how much, at what cost, and what fell; pictures and readable names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bench.records.schema import Latency, Outcome
from bench.report import generate
from bench.report.answers import BoardAnswer, first_boards, make_answers
from bench.report.boards import make_boards
from bench.report.charts.scatter import frontier, scatter
from bench.report.naming import readable, readable_dataset

from ..builders import both, outcome, saved

PATCH_BOARD = [
    *both("patch", "none", 0.2, 0.2),
    *both("patch", "lgs", 0.9, 0.6),
    *both("patch", "tvm", 0.8, 0.45),
    *both("patch", "jpeg", 0.85, 0.15),
    *both("patch", "median", 0.5, 0.2),
    *both("patch", "psd", 0.5, 0.3),
]


def answer(*outcomes: Outcome, latencies: tuple[Latency, ...] = ()) -> BoardAnswer:
    (one,) = make_answers(make_boards(outcomes, latencies)[0])
    return one


def test_the_sentences_say_what_is_best_at_what_cost_and_what_fell() -> None:
    time = Latency("cifar10", "photos-cnn", "lgs", {1: {"ratio": 1.2}, 32: {"ratio": 1.5}}, "m")
    best, cost, fell, sure = answer(*PATCH_BOARD, latencies=(time,)).sentences
    assert best == (
        "Best: lgs keeps 60.0 % (55.1–64.7) of the images right against an attacker who knows it, 40.0 points more "
        "than without a defense (20.0 %)."
    )
    assert cost == "Its cost: no clean accuracy and 1.50 times the time for an image."
    assert fell == (
        "2 of 5 defenses are not better than none. jpeg falls from 85.0 % to 15.0 % once the attacker knows it."
    )
    assert sure.startswith("400 images, intervals of ± ")


def test_the_sentences_name_rows_that_cannot_be_told_apart() -> None:
    best = answer(*PATCH_BOARD, *both("patch", "dw", 0.9, 0.595)).sentences[0]
    assert best.endswith("The images do not tell it apart from dw.")


def test_a_board_on_which_nothing_is_compared_does_not_say_that_nothing_is_better() -> None:
    lacking = [*both("patch", "none", 0.2, 0.2), *both("square", "none", 0.1, 0.1)]
    boards = make_boards([*lacking, *(outcome("patch", f"d{one}", "oblivious", 0.9) for one in range(5))])[0]
    first = BoardAnswer(boards[0], "")
    assert first.compared == 0
    assert first.sentences[0] == "So far no row is compared with the model without a defense."


def test_boards_that_differ_only_in_effort_have_titles_of_their_own() -> None:
    quick = [replace(one, cell=replace(one.cell, effort="quick")) for one in PATCH_BOARD]
    titles = [one.title for one in make_answers(make_boards([*PATCH_BOARD, *quick])[0])]
    assert len(set(titles)) == 2
    assert any("quick" in title for title in titles)


def test_the_short_table_has_ten_defenses_and_the_line_of_no_defense() -> None:
    many = [each for number in range(12) for each in both("patch", f"d{number}", 0.9, 0.3 + number / 50)]
    rows = answer(*PATCH_BOARD, *many).short
    assert len(rows) == 11
    assert [row.baseline for row in rows] == [*[False] * 10, True]
    few = answer(*PATCH_BOARD).short
    assert [row.defense.key for row in few] == ["lgs", "tvm", "psd", "none", "median", "jpeg"]


def test_boards_of_benchmarks_come_first_and_other_boards_are_experiments(tmp_path: Path) -> None:
    named = [
        each
        for name, level in (("none", 0.2), ("lgs", 0.6))
        for each in both("autopatch:area=0.0244140625,version=1", name, level, level, images=500)
    ]
    boards = make_boards([*PATCH_BOARD, *named])[0]
    assert [one.benchmark for one in first_boards(boards)] == ["CIFAR-10, one patch on each image"]
    files = generate(saved(tmp_path, *PATCH_BOARD, *named))
    index, others = (files[tmp_path / name] for name in ("index.html", "experiments.html"))
    assert "CIFAR-10, one patch on each image" in index
    assert "data-dataset=cifar10" in index
    assert "CIFAR-10, one patch on each image" not in others
    assert "(#cifar-10-one-patch-on-each-image)" in files[tmp_path / "README.md"]


def test_every_defense_is_a_dot_with_its_interval_and_the_number_of_its_row() -> None:
    picture = scatter(answer(*PATCH_BOARD))
    assert re.findall(r'text-anchor="middle">(\d+)</text></g>', picture) == ["5", "4", "3", "2", "1"]
    assert picture.count("whisker") == len(PATCH_BOARD) / 2
    assert "lgs: clean 95.0 %, under attack 60.0 % (55.1–64.7), oblivious 90.0 %" in picture
    assert picture.count('class="tail"') == 5  # all but the model without a defense


def test_nothing_is_above_the_frontier() -> None:
    points = [(90.0, 10.0), (80.0, 40.0), (85.0, 30.0), (70.0, 35.0), (95.0, 0.0)]
    assert frontier(points)[::2] == [(95.0, 0.0), (90.0, 10.0), (85.0, 30.0), (80.0, 40.0)]


@pytest.mark.parametrize(
    ("dataset", "model", "name"),
    [
        ("folder:cifar10-jpeg@a1acbc75", "resnet20:weights=cifar10-jpeg-resnet20.safetensors@bbd54080",
         "CIFAR-10 (jpeg) · ResNet-20"),
        ("cifar10", "resnet20", "CIFAR-10 · ResNet-20"),
        ("folder:imagenet-1000@55a3fd3b,crop=224,train=0.3", "timm:mobilenetv2_100,mean=0.5:0.5:0.5,pad_type=same",
         "ImageNet (1000) · MobileNetV2"),
        ("imagenet", "torchvision:resnet50,weights=IMAGENET1K_V2", "ImageNet · ResNet-50"),
        ("photos", "photos-cnn", "Photographs · small CNN"),
    ],
)  # fmt: skip
def test_data_and_models_have_readable_names(dataset: str, model: str, name: str) -> None:
    assert readable(dataset, model) == name


def test_a_name_that_nobody_knows_is_itself() -> None:
    assert readable_dataset("folder:<b>@1a2b3c4d") == "<b>"
