"""Boards, their flags, and the three kinds of table."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from bench.plugins.specs import split_specs
from bench.records.command import command, commands
from bench.records.schema import TIERS, Cell, Facts, Latency, Outcome, PluginRecord
from bench.records.store import Store
from bench.report import describe, generate, print_boards, stale_files, summary, write_report
from bench.report.board import WORST_CASE, Board, PluginLink, Row
from bench.report.boards import make_boards
from bench.report.checks import CHECKS, NOT_RUN
from bench.report.evidence import NO_BETTER
from bench.report.html import asset, stylesheet
from bench.report.plugin_docs import plugin_docs

from ..builders import LGS, NASTY, PATCH, TRAITS, Tags, both, facts, outcome, saved


def board(*outcomes: Outcome, latencies: tuple[Latency, ...] = ()) -> Board:
    boards, _ = make_boards(outcomes, latencies)
    assert len(boards) == 1
    return boards[0]


def row(one: Board, defense: str) -> Row:
    return next(row for row in one.rows if row.defense.key == defense)


def raised(one: Board, defense: str) -> dict[str, str]:
    """id -> colour of the flags that fired."""
    return {flag.id: flag.colour for flag in row(one, defense).raised}


def printed(*outcomes: Outcome, latencies: tuple[Latency, ...] = (), width: int = 100) -> str:
    text = StringIO()
    print_boards(outcomes, latencies, Console(file=text, width=width, force_terminal=False))
    return text.getvalue()


def test_a_board_never_mixes_budgets_goals_efforts_or_numbers_of_images() -> None:
    other = {**PATCH, "budget": "patch ≤ 10 %"}
    boards, _ = make_boards(
        [
            outcome("patch", "lgs", "oblivious", 0.5),
            outcome("patch:area=0.1", "lgs", "oblivious", 0.5, attack_traits=other),
            outcome("patch", "lgs", "oblivious", 0.5, goal="targeted"),
            outcome("patch", "lgs", "oblivious", 0.5, effort="quick"),
            outcome("patch", "lgs", "oblivious", 0.5, images=400),
            outcome("patch", "lgs", "oblivious", 0.5, dataset="digits"),
        ]
    )
    assert len(boards) == 6
    assert len({one.conditions for one in boards}) == 6


def test_no_column_holds_both_tiers() -> None:
    one = board(*LGS)
    assert [(column.label, column.tint) for column in one.columns] == [
        ("patch", "adaptive"), ("δ", "adaptive"), ("β", "adaptive"),
        ("patch", "oblivious"), ("δ", "oblivious"), ("β", "oblivious"),
    ]  # fmt: skip
    assert [cell.text for cell in row(one, "lgs").cells] == ["40.0", "55.0", "26.7", "60.0", "35.0", "53.3"]
    assert row(one, "lgs").cells[2].suffix == "of 300"


def test_the_headline_is_the_worst_case_over_images_not_over_attacks() -> None:
    halves = [np.arange(400) < 200, np.arange(400) >= 200]
    kept = [one.astype(float).tolist() for one in halves]
    one = board(
        outcome("patch", "lgs", "adaptive", facts(0.5, clean=1.0, defended_attacked=kept[0])),
        outcome("sparse-rs", "lgs", "adaptive", facts(0.5, clean=1.0, defended_attacked=kept[1])),
    )
    assert one.entries["lgs", WORST_CASE, "adaptive"].numbers["attacked_accuracy"].text == "0.0"


def test_several_seeds_are_one_number_and_named() -> None:
    one = board(outcome("patch", "lgs", "oblivious", 0.4), outcome("patch", "lgs", "oblivious", 0.6, seed=3))
    assert one.entries["lgs", "patch", "oblivious"].numbers["attacked_accuracy"].text == "50.0"
    assert one.seeds == (0, 3)
    assert any("Seeds 0, 3" in remark for remark in one.remarks)


def test_a_failed_cell_shows_its_status_and_its_reason_and_never_a_number() -> None:
    one = board(*LGS, outcome("patch", "jpeg", "oblivious", 0.5), outcome("patch", "jpeg", "adaptive", None))
    cell = row(one, "jpeg").cells[0]
    assert (cell.text, cell.value) == ("timeout", None)
    assert "took longer than 60 s" in one.footnotes[cell.note - 1]
    assert row(one, "jpeg").rank == "–"


def test_an_attack_that_fails_on_every_defense_stays_on_its_board_and_leaves_it_incomplete() -> None:
    one = board(*LGS, *(outcome("sparse-rs", defense, "adaptive", None) for defense in ("none", "lgs")))
    assert [column.label for column in one.columns if column.tint == "adaptive"] == [
        "worst case", "δ", "β", "patch", "sparse-rs",
    ]  # fmt: skip
    assert one.entries["lgs", WORST_CASE, "adaptive"].numbers["attacked_accuracy"].text == "≤ 40.0"
    assert row(one, "lgs").why_unranked == "Incomplete: no number against sparse-rs."
    assert "timeout" in printed(*LGS, outcome("sparse-rs", "lgs", "adaptive", None))


def test_a_failed_timing_is_shown_as_such(tmp_path: Path) -> None:
    failed = Latency("cifar10", "photos-cnn", "lgs", {}, "a machine", status="error", reason="no <clock>")
    assert "lgs: timing failed: error: no <clock>" in board(*LGS, latencies=(failed,)).remarks
    page = generate(saved(tmp_path, *LGS, failed))[tmp_path / "site" / "defenses" / "lgs.html"]
    assert "error: no &lt;clock&gt;" in page


def test_a_worst_case_without_an_attack_that_failed_is_a_bound_and_not_ranked() -> None:
    cells = [*LGS, *both("sparse-rs", "none", 0.5, 0.5), outcome("sparse-rs", "lgs", "adaptive", None)]
    one = board(*cells)
    worst = one.entries["lgs", WORST_CASE, "adaptive"].numbers
    assert worst["attacked_accuracy"].text == "≤ 40.0"
    assert worst["delta"].text == "≥ 55.0"
    assert row(one, "lgs").rank == "–"
    assert "sparse-rs" in row(one, "lgs").why_unranked


def test_an_attack_that_only_one_row_has_met_does_not_unrank_the_others() -> None:
    cells = [*LGS, *both("patch", "jpeg", 0.5, 0.3), *both("sparse-rs", "lgs", 0.9, 0.9)]
    assert row(board(*cells), "jpeg").rank == "2"


def test_rows_rank_by_the_adaptive_worst_case_with_ties_and_the_bare_model_has_no_rank() -> None:
    cells = [*LGS, *both("patch", "jpeg", 0.9, 0.3), *both("patch", "tvm", 0.5, 0.3)]
    one = board(*cells)
    assert [(each.defense.key, each.rank) for each in one.rows] == [
        ("lgs", "1"),
        ("jpeg", "2="),
        ("tvm", "2="),
        ("none", ""),
    ]
    assert one.basis == "adaptive"


def test_what_is_not_better_than_no_defense_is_below_that_line_and_has_no_rank() -> None:
    one = board(*LGS, *both("patch", "jpeg", 0.9, 0.205), *both("patch", "tvm", 0.5, 0.1))
    assert [(each.defense.key, each.rank, each.section) for each in one.rows] == [
        ("lgs", "1", ""),
        ("none", "", ""),
        ("jpeg", "–", NO_BETTER),
        ("tvm", "–", NO_BETTER),
    ]


def test_without_a_row_for_no_defense_the_facts_about_the_bare_model_draw_the_line() -> None:
    one = board(outcome("patch", "lgs", "adaptive", 0.4), outcome("patch", "jpeg", "adaptive", 0.2))
    assert [each.rank for each in one.rows] == ["1", "–"]


def test_a_small_sample_bars_nobody_and_a_red_flag_bars_without_helping_others() -> None:
    few = [outcome("patch", name, "adaptive", level, images=60) for name, level in (("none", 0.2), ("lgs", 0.6))]
    assert row(board(*few), "lgs").rank == "1"
    barred = outcome("patch", "tvm", "adaptive", noted(zero_gradient=0.9, level=0.8))
    one = board(*LGS, *both("patch", "jpeg", 0.6, 0.3), barred)
    assert [(each.defense.key, each.rank) for each in one.rows[:3]] == [("tvm", "–"), ("lgs", "2"), ("jpeg", "3")]
    assert row(one, "tvm").why_unranked == "Not ranked because of S06 vanishing gradient."


def test_a_demonstration_ranks_nothing_and_says_so() -> None:
    one = board(*both("patch", "none", 0.2, 0.2, dataset="photos"), *both("patch", "lgs", 0.9, 0.9, dataset="photos"))
    assert row(one, "lgs").rank == "–"
    assert any(remark.startswith("A demonstration") for remark in one.remarks)
    low, high = map(float, row(one, "lgs").cells[0].interval.split("–"))
    assert high - low > 30


def test_a_row_without_a_seed_of_the_others_is_incomplete() -> None:
    seeds = [one for seed in (0, 1) for name in ("none", "lgs") for one in both("patch", name, 0.5, 0.3, seed=seed)]
    one = board(*seeds, *both("patch", "jpeg", 0.9, 0.8))
    assert row(one, "jpeg").why_unranked == "Incomplete: no number against patch with seed 1."


def test_a_row_that_more_attacks_hurt_is_not_compared_with_rows_that_never_met_them() -> None:
    lone = outcome("sparse-rs", "lgs", "adaptive", 0.1)
    one = board(*LGS, *both("patch", "jpeg", 0.5, 0.3), lone)
    assert "did not meet" in row(one, "lgs").why_unranked
    assert row(one, "jpeg").rank == "1"


def test_each_training_of_a_defense_is_in_its_row() -> None:
    traits = {"kind": "trained", "trained": True}
    cells = [
        outcome("patch", "fat", "adaptive", level, seed=seed, defense_traits=traits)
        for seed, level in enumerate((0.515, 0.865, 0.55))
    ]
    cell = row(board(*LGS, *cells), "fat").cells[0]
    assert cell.spread == "by seed 51.5, 86.5, 55.0"
    assert float(cell.interval.split("–")[0]) < 55 < 80 < float(cell.interval.split("–")[1])


def test_what_nearly_all_rows_carry_is_said_once_a_board() -> None:
    one = board(*LGS, *(each for name in ("jpeg", "tvm", "psd") for each in both("patch", name, 0.5, 0.3)))
    assert one.common == ("S28",)
    assert all("S28" not in {flag.id for flag in one.own(each)} for each in one.rows)
    assert [rows for flag, rows in summary.raised(one) if flag.id == "S28"] == ["5 of 5 rows"]


def test_what_is_said_once_a_board_has_no_figures_of_a_single_row() -> None:
    sizes = {"none": 0.5, "jpeg": 0.5, "tvm": 0.4, "psd": 0.6}
    few = [outcome("patch", name, "adaptive", level, images=60) for name, level in sizes.items()]
    (flag,) = [flag for flag, _ in summary.raised(board(*few)) if flag.id == "S33"]
    assert "±" not in flag.text
    warned = [replace(one, warnings=[f"{one.cell.defense} warns"]) for one in few]
    (flag,) = [flag for flag, _ in summary.raised(board(*warned)) if flag.id == "W"]
    assert flag.text == "bench show prints them for each cell."


def test_a_worst_case_without_a_common_image_is_no_number() -> None:
    halves = [
        outcome(attack, defense, "oblivious", facts(0.4, index=list(range(start, start + 400))))
        for attack, start in (("patch", 0), ("sparse-rs", 400))
        for defense in ("none", "lgs")
    ]
    assert row(board(*halves), "lgs").why_unranked == "No number against the oblivious attacker."


def test_a_defense_that_learns_is_known_by_any_of_its_records() -> None:
    traits = {"kind": "trained", "trained": True}
    seeds = [
        outcome("patch", "fat", "adaptive", level, seed=seed, defense_traits=traits)
        for seed, level in enumerate((0.5, 0.9))
    ]
    failed = replace(outcome("apgd", "fat", "adaptive", None, attack_traits=PATCH), defense=None)
    spreads = [number.spread for number in row(board(*LGS, *seeds, failed), "fat").cells]
    assert "by seed 50.0, 90.0" in spreads[0]


def test_cells_on_different_images_do_not_disagree() -> None:
    part = outcome("sparse-rs", "lgs", "adaptive", facts(0.4, n=100))
    assert not any("disagree about" in remark for remark in board(*LGS, part).remarks)


def test_rows_without_an_adaptive_number_are_not_ranked_among_those_that_have_one() -> None:
    one = board(*LGS, outcome("patch", "jpeg", "oblivious", 0.9))
    assert row(one, "jpeg").rank == "–"


def test_without_any_adaptive_number_the_oblivious_worst_case_ranks() -> None:
    one = board(outcome("patch", "jpeg", "oblivious", 0.9), outcome("patch", "lgs", "oblivious", 0.3))
    assert [each.rank for each in one.rows] == ["1", "2"]


def test_an_upper_bound_is_never_ranked() -> None:
    told = both("patch", "dw-oracle", 0.9, 0.9, defense_traits={"ranked": False})
    assert row(board(*LGS, *told), "dw-oracle").rank == "–"


def test_an_empty_d_is_a_dash_with_its_count() -> None:
    unharmed = facts(0.5, bare=0.95)
    cell = row(board(outcome("patch", "lgs", "oblivious", unharmed)), "lgs").cells[2]
    assert (cell.text, cell.suffix, cell.value) == ("–", "of 0", None)


def test_no_eligible_image_is_a_dash() -> None:
    none = facts(0.0, clean=0.0)
    entry = board(outcome("patch", "lgs", "oblivious", none)).entries["lgs", "patch", "oblivious"]
    assert entry.numbers["attack_success"].text == "–"


def test_rejections_proofs_and_times_have_columns_of_their_own() -> None:
    told = facts(
        0.6, rejected_clean=[0.0] * 380 + [1.0] * 20, rejected_attacked=[0.0] * 400, certified=[1] * 40 + [0] * 360
    )
    times = Latency("cifar10", "photos-cnn", "lgs", {1: {"bare": 2.0, "defended": 3.0, "ratio": 1.5}}, "a machine")
    one = board(outcome("patch", "lgs", "oblivious", told), latencies=(times,))
    shown = {column.group: cell.text for column, cell in zip(one.columns, row(one, "lgs").cells, strict=True)}
    assert {key: shown[key] for key in ("proof", "detector", "time")} == {
        "proof": "10.0",
        "detector": "5.0",
        "time": "1.50×",
    }


def test_a_record_whose_attack_could_not_be_made_joins_its_board_or_is_listed() -> None:
    known = outcome("patch", "jpeg", "oblivious", None, attack=None)
    lost = outcome("boom", "jpeg", "oblivious", None, attack=None)
    boards, homeless = make_boards([*LGS, known, lost])
    assert len(boards) == 1
    assert row(boards[0], "jpeg").cells[3].text == "timeout"
    assert len(homeless) == 1
    assert homeless == [lost]


def test_stale_records_of_one_board_are_told() -> None:
    other = outcome("patch", "jpeg", "oblivious", 0.5, fingerprints={"data": "d1", "weights": "OTHER"})
    assert any("disagree in weights" in remark for remark in board(*LGS, other).remarks)
    assert not any("disagree" in remark for remark in board(*LGS).remarks)


def test_times_of_other_code_are_told() -> None:
    def told(code: str) -> bool:
        time = Latency("cifar10", "photos-cnn", "lgs", {1: {"ratio": 1.5}}, "a machine", {"defense": code})
        return any("Times measured with different code: lgs" in one for one in board(*LGS, latencies=(time,)).remarks)

    assert told("ANOTHER")
    assert not told(plugin_docs("defense", "lgs").fingerprint)


def test_cells_of_several_trainings_or_of_several_makings_of_an_attack_are_told() -> None:
    again = facts(0.4)
    trained = outcome("tnt", "lgs", "oblivious", replace(again, defended_clean=again.defended_clean[::-1]))
    made = outcome("patch", "jpeg", "oblivious", replace(again, bare_attacked=again.bare_attacked[::-1]))
    told = [one for one in board(*LGS, trained, made).remarks if "disagree about" in one]
    assert [one.partition(":")[0] for one in told] == ["lgs", "patch"]
    assert not any("disagree about" in one for one in board(*LGS).remarks)


def noted(level: float = 0.4, **values: float) -> Facts:
    """Facts with these notes about the first half of the images."""
    return facts(level, noted={name: [value] * 200 + [None] * 200 for name, value in values.items()})


GOOD = facts(0.4, defended_occluded=[1.0] * 360 + [0.0] * 40)
WEAK = facts(0.4, defended_occluded=[1.0] * 160 + [0.0] * 240)
BROKEN = facts(0.4, certified=[0] * 159 + [1, 1] + [0] * 239)
FIRE: list[tuple[str, str, list[Outcome]]] = [
    ("S06", "amber", [outcome("patch", "lgs", "adaptive", noted(zero_gradient=0.2))]),
    ("S06", "red", [outcome("patch", "lgs", "adaptive", noted(zero_gradient=0.9))]),
    (
        "S08",
        "red",
        [outcome("patch", "lgs", "adaptive", 0.4, defense_traits={"random": True}, provenance={"draws": "1"})],
    ),
    ("S11", "red", [outcome("fgsm", "lgs", "adaptive", 0.2), outcome("ifgsm", "lgs", "adaptive", 0.5)]),
    ("S12", "red", [outcome("square", "lgs", "adaptive", 0.2), outcome("ifgsm", "lgs", "adaptive", 0.5)]),
    ("S13", "red", both("patch", "lgs", 0.2, 0.5)),
    ("S24", "red", [outcome("patch", "lgs", "adaptive", facts(0.9, bare=0.95))]),
    ("S27", "amber", [outcome("patch", "lgs", "adaptive", 0.4, defense_traits={"tuned_on": ["patch"]})]),
    ("S28", "amber", [outcome("patch", "lgs", "oblivious", 0.4)]),
    ("S30", "amber", [outcome("patch", "lgs", "adaptive", WEAK)]),
    ("S33", "amber", [outcome("patch", "lgs", "adaptive", facts(0.5, n=100))]),
    ("S08", "red", [outcome("patch", "lgs", "adaptive", noted(unrepeatable=1.0))]),
    ("S34", "red", [outcome("patch", "lgs", "oblivious", noted(depends_on_batch=1.0))]),
    ("S34", "red", [outcome("patch", "lgs", "adaptive", noted(depends_on_history=1.0))]),
    ("S36", "red", [outcome("patch", "lgs", "adaptive", noted(non_finite_clean=0.5))]),
    ("S36", "red", [outcome("patch", "lgs", "adaptive", noted(non_finite_attacked=0.5))]),
    ("S37", "red", [outcome("patch", "lgs", "adaptive", facts(0.05, bare_clean=[1.0] * 45 + [0.0] * 355))]),
    ("C01", "red", [outcome("patch", "lgs", "adaptive", BROKEN)]),
    ("W", "amber", [outcome("patch", "lgs", "adaptive", 0.4, warnings=["3 % of something"])]),
]
QUIET: list[tuple[str, list[Outcome]]] = [
    ("S06", [outcome("patch", "lgs", "adaptive", noted(zero_gradient=0.01))]),
    ("S08", [outcome("patch", "lgs", "adaptive", 0.4, defense_traits={"random": True}, provenance={"draws": "20"})]),
    ("S11", [outcome("fgsm", "lgs", "adaptive", 0.5), outcome("ifgsm", "lgs", "adaptive", 0.2)]),
    ("S11", [outcome("fgsm", "lgs", "oblivious", 0.2), outcome("ifgsm", "lgs", "oblivious", 0.5)]),
    ("S12", [outcome("square", "lgs", "adaptive", 0.5), outcome("ifgsm", "lgs", "adaptive", 0.2)]),
    ("S12", [outcome("sparse-rs", "lgs", "adaptive", 0.2), outcome("patch", "lgs", "adaptive", 0.5)]),
    ("S13", both("patch", "lgs", 0.5, 0.4975)),
    ("S24", [outcome("patch", "lgs", "adaptive", 0.9)]),
    ("S27", [outcome("patch", "lgs", "adaptive", 0.4, defense_traits={"tuned_on": ["fgsm"]})]),
    ("S28", [outcome("patch", "lgs", "adaptive", 0.4), outcome("sparse-rs", "lgs", "adaptive", 0.4)]),
    (
        "S28",
        [outcome("autopatch", "lgs", "adaptive", 0.4, attack_traits={**PATCH, "accesses": ["gradients", "scores"]})],
    ),
    ("S30", [outcome("patch", "lgs", "adaptive", GOOD), outcome("patch", "lgs", "oblivious", WEAK)]),
    ("S30", [outcome("occlusion", "lgs", "adaptive", WEAK)]),
    ("S33", [outcome("patch", "lgs", "adaptive", facts(0.5, n=400))]),
    ("S36", [outcome("patch", "lgs", "adaptive", noted(non_finite_attacked=0.0))]),
    ("S37", [outcome("patch", "lgs", "adaptive", facts(0.05, bare_clean=[1.0] * 100 + [0.0] * 300))]),
    ("C01", [outcome("patch", "lgs", "adaptive", facts(0.4, certified=[1] * 160 + [0] * 240))]),
]


@pytest.mark.parametrize(("flag", "colour", "outcomes"), FIRE)
def test_a_flag_fires_where_it_must(flag: str, colour: str, outcomes: list[Outcome]) -> None:
    one = board(*outcomes)
    assert raised(one, "lgs").get(flag) == colour
    if colour == "red":
        assert row(one, "lgs").rank == "–"


@pytest.mark.parametrize(("flag", "outcomes"), QUIET)
def test_a_flag_is_quiet_where_nothing_is_wrong(flag: str, outcomes: list[Outcome]) -> None:
    assert flag not in raised(board(*outcomes), "lgs")


def test_a_larger_budget_that_hurts_less_is_flagged_on_both_boards() -> None:
    larger = {"attack_traits": {**PATCH, "budget": "patch ≤ 10 %"}}
    record = PluginRecord("patch", "Patch", "", {"area": 0.1}, larger["attack_traits"])
    cells = [outcome("patch", "lgs", "adaptive", 0.3), outcome("patch:area=0.1", "lgs", "adaptive", 0.6, attack=record)]
    boards, _ = make_boards(cells)
    assert [raised(one, "lgs").get("S15") for one in boards] == ["amber", "amber"]


def test_a_targeted_attack_that_hurts_more_than_an_untargeted_one_is_flagged() -> None:
    cells = [outcome("patch", "lgs", "adaptive", 0.2, goal="targeted"), outcome("patch", "lgs", "adaptive", 0.5)]
    boards, _ = make_boards(cells)
    assert all(raised(one, "lgs").get("S20") == "amber" for one in boards)


def test_a_defense_that_beats_the_true_mask_is_flagged() -> None:
    oracle = outcome("patch", "dw-oracle", "adaptive", 0.5, defense_traits={"ranked": False})
    one = board(oracle, outcome("patch", "lgs", "adaptive", 0.8), outcome("patch", "jpeg", "adaptive", 0.3))
    assert raised(one, "lgs").get("S31") == "amber"
    assert "S31" not in raised(one, "jpeg")


def test_a_noisy_clock_is_flagged() -> None:
    times = Latency("cifar10", "photos-cnn", "lgs", {1: {"ratio": 1.5, "spread": 4.0}}, "a machine")
    assert raised(board(*LGS, latencies=(times,)), "lgs").get("S35") == "amber"


def test_a_detector_with_more_false_alarms_than_it_was_calibrated_for_is_flagged() -> None:
    def alarms(count: int) -> list[Outcome]:
        told = facts(0.5, rejected_clean=[1.0] * count + [0.0] * (400 - count), rejected_attacked=[0.0] * 400)
        detector = PluginRecord("lgs", "LGS", "", {"false_positive_rate": 0.05}, {"kind": "detector"})
        return [outcome("patch", "lgs", "adaptive", told, defense=detector)]

    assert raised(board(*alarms(60)), "lgs").get("D01") == "amber"
    assert "D01" not in raised(board(*alarms(24)), "lgs")


def test_a_check_that_could_not_run_is_grey_and_never_silent() -> None:
    unchecked = {flag.id for flag in row(board(*LGS), "lgs").not_run}
    assert unchecked >= {"S06", "S11", "S12", "S15", "S20", "S30", "S31", "S35"}


def test_every_check_of_the_protocol_is_a_function_or_named_as_not_run() -> None:
    named = {check.id for check in CHECKS} | set(NOT_RUN) | {"S01", "S02", "S03"}
    skipped = {10, 19, 23, 26, 29}  # numbers that the protocol does not use
    assert named >= {f"S{number:02d}" for number in range(1, 36) if number not in skipped}


def test_the_terminal_shows_both_attackers_side_by_side_within_100_columns() -> None:
    text = printed(*LGS)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert re.search(r"none +95\.0 +20\.0 +75\.0 +0\.0 +20\.0 +75\.0 +0\.0", text)
    assert re.search(r"lgs +95\.0 +60\.0 +35\.0 +53\.3 +40\.0 +55\.0 +26\.7", text)
    for word in (
        "photos",
        "photos-cnn",
        "patch ≤ 5 %",
        "400 images",
        "effort standard",
        "oblivious",
        "adaptive",
        "of 300",
    ):
        assert word in text


def test_the_terminal_fits_two_attacks_times_and_long_names_without_losing_a_digit() -> None:
    times = tuple(
        Latency("cifar10", "photos-cnn", one, {1: {"ratio": 1.25}, 32: {"ratio": 1.125}}, "m")
        for one in ("none", "lgs")
    )
    cells = [*LGS, *both("sparse-rs", "none", 0.3, 0.3), *both("sparse-rs", "lgs", 0.7, 0.45)]
    text = printed(*cells, latencies=times)
    assert "…" not in text
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "1.25× at 1" in text
    assert "1.12× at 32" in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_drops_columns_and_cuts_no_number(width: int) -> None:
    ratios = {1: {"ratio": 1.25}, 32: {"ratio": 1.125}}
    times = tuple(Latency("cifar10", "photos-cnn", one, ratios, "m") for one in ("none", "lgs"))
    text = printed(*LGS, *both("patch", "adversarial-training", 0.5, 0.3), latencies=times, width=width)
    table = text[text.index("defense") : text.index("No room for: β")]
    assert "…" not in table
    assert max(len(line) for line in table.splitlines()) <= width
    assert re.search(r"lgs.* 40\.0( |$)", table, re.MULTILINE)
    assert "35.3–44.9" in table


def test_the_terminal_shows_names_as_they_are_and_no_control_characters() -> None:
    text = printed(outcome("patch", NASTY, "oblivious", 0.5), width=300)
    assert "\x1b" not in text
    assert "<script>alert(1)</script>|`x`" in text


def nasty(folder: Path) -> dict[str, str]:
    """The generated files where every name and every reason is nasty."""
    record = PluginRecord(NASTY, NASTY, NASTY, {NASTY: NASTY}, {**PATCH, "budget": NASTY, "threat_model": NASTY}, NASTY)
    defense = PluginRecord(NASTY, NASTY, NASTY, {}, {"kind": NASTY, "tuned_on": [NASTY]}, NASTY)
    more: dict[str, Any] = {"attack": record, "defense": defense, "warnings": [NASTY], "dataset": NASTY}
    more |= {"provenance": {NASTY: NASTY}, "fingerprints": {NASTY: NASTY}}
    cells = [outcome(NASTY, NASTY, "oblivious", 0.5, **more), outcome(NASTY, "x" + NASTY, "oblivious", 0.5, **more)]
    cells.append(outcome("boom", "lgs", "oblivious", None, reason=NASTY, attack=None))
    cells.append(outcome(NASTY, "lgs", "oblivious", None, reason=NASTY, **more))
    time = Latency(NASTY, "photos-cnn", NASTY, {1: {"ratio": 1.0}}, NASTY)
    return {str(path.relative_to(folder)): text for path, text in generate(saved(folder, *cells, time)).items()}


def test_markup_in_names_is_inert_on_every_page(tmp_path: Path) -> None:
    pages = {name: text for name, text in nasty(tmp_path).items() if name.endswith(".html")}
    assert len(pages) >= 10  # two front pages, two lists, and each attack, defense and cell
    for name, page in pages.items():
        tags = Tags(page).found
        (script,) = [attributes for tag, attributes in tags if tag == "script"]
        assert script.keys() == ({"src", "defer"} if name.startswith("site") else set())
        assert "<script>alert" not in page
        assert not any(attribute.startswith("on") for _, attributes in tags for attribute in attributes)


def test_pages_ask_nothing_of_another_host_and_their_links_lead_somewhere(tmp_path: Path) -> None:
    write_report(saved(tmp_path, *LGS, outcome("boom", "lgs", "oblivious", None, attack=None)))
    for path in tmp_path.rglob("*.html"):
        tags = Tags(path.read_text()).found
        ids = {attributes["id"] for _, attributes in tags if "id" in attributes}
        assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in tags)
        for tag, attributes in tags:
            target = attributes.get("src") or attributes.get("href") or "data:,"
            if target == "data:," or (tag == "a" and target.startswith("https://arxiv.org/abs/")):
                continue
            file, _, place = target.partition("#")
            assert (path.parent / file).resolve().is_file() or not file, target
            if place and not file:
                assert place in ids


def test_the_front_page_in_the_repository_is_small() -> None:
    assert (Path(__file__).parents[2] / "results" / "index.html").stat().st_size < 600_000


def test_the_front_page_in_the_repository_is_all_in_one_file(tmp_path: Path) -> None:
    page = generate(saved(tmp_path, *LGS))[tmp_path / "index.html"]
    tags = Tags(page).found
    targets = [attributes.get("src") or attributes.get("href") or "" for _, attributes in tags]
    outside = {
        one for one in targets if one and one != "data:," and not one.startswith(("#", "https://arxiv.org/abs/"))
    }
    assert outside <= {"experiments.html", "experiments.html#troubles"}
    policy = next(attributes["content"] for _, attributes in tags if "http-equiv" in attributes)
    for tag, marker in (("style", "style-src"), ("script", "script-src")):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = b64encode(sha256(content.encode()).digest()).decode()
        assert f"{marker} 'sha256-{digest}'" in str(policy)
        assert content in (asset("page.js"), stylesheet())


def test_markup_in_names_does_not_break_a_markdown_table(tmp_path: Path) -> None:
    files = nasty(tmp_path)
    text = "".join(content for name, content in files.items() if name.startswith("boards/"))
    assert "<script>" not in text + files["README.md"]
    tables = [list(map(str.strip, re.split(r"(?<!\\)\|", line))) for line in text.splitlines() if line.startswith("|")]
    widths = {len(cells) for cells in tables}
    assert len(widths) == 2  # the wide and the long table, each with one width


def test_the_generated_files_depend_on_the_records_alone(tmp_path: Path) -> None:
    records = [*LGS, *both("sparse-rs", "lgs", 0.7, 0.45)]
    first = generate(saved(tmp_path / "one", *records))
    second = generate(saved(tmp_path / "two", *reversed(records)))
    assert {path.relative_to(tmp_path / "one"): text for path, text in first.items()} == {
        path.relative_to(tmp_path / "two"): text for path, text in second.items()
    }
    assert "2025-01-02" in first[tmp_path / "one" / "site" / "experiments.html"]


def test_what_is_committed_is_stale_until_written_and_again_after_a_new_record(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS)
    committed = stale_files(folder)
    assert {path.name for path in committed} >= {"README.md", "index.html", "experiments.html"}
    assert set(write_report(folder)) == set(generate(folder)) > set(committed)
    assert stale_files(folder) == []
    assert write_report(folder) == []
    saved(folder, outcome("patch", "jpeg", "oblivious", 0.5))
    assert {path.name for path in stale_files(folder)} >= {"experiments.html"}
    assert any(path.parent.name == "boards" for path in stale_files(folder))


def test_the_page_of_a_deleted_record_is_deleted(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS)
    write_report(folder)
    before = set((folder / "site" / "cells").iterdir())
    Store(folder).path(LGS[3].cell).unlink()
    assert before <= set(generate(folder))  # the page still shows the other tier
    Store(folder).path(LGS[2].cell).unlink()
    (obsolete,) = before - set(generate(folder))
    assert obsolete in write_report(folder)
    assert not obsolete.exists()


def test_boards_that_no_benchmark_is_about_stand_whole_in_the_readme_of_a_small_folder(tmp_path: Path) -> None:
    failed = outcome("fgsm", "lgs", "oblivious", None, dataset="folder:mine")
    folder = saved(tmp_path, failed, *both("patch", "lgs", 0.2, 0.2, dataset="folder:mine"))
    text = generate(folder)[folder / "README.md"]
    section = text[text.index("## folder:mine · photos-cnn") :]
    assert "fgsm on lgs (oblivious): timeout" in section


def test_the_model_with_the_most_cells_comes_first() -> None:
    other = both("patch", "none", 0.2, 0.2, dataset="digits")
    assert [one.conditions.dataset for one in make_boards([*other, *LGS])[0]] == ["cifar10", "digits"]
    assert [one.conditions.dataset for one in make_boards([*other, *LGS[:1]])[0]] == ["digits", "cifar10"]


def test_a_folder_without_records_gives_pages_that_say_so(tmp_path: Path) -> None:
    files = generate(tmp_path)
    assert all("no records yet" in files[tmp_path / name] for name in ("README.md", "index.html", "site/index.html"))


def test_a_command_gives_back_the_options_that_made_the_cell() -> None:
    cell = Cell(
        "folder:images,crop=224,resize=256",
        "timm:mobilenetv2_100,mean=0.5:0.5:0.5,pad_type=same,weights=net.safetensors",
        "patch:area=0.1", "lgs", "adaptive", "targeted:3", "quick", 0, 7,
    )  # fmt: skip
    assert command(cell) == (
        "bench run --attack patch:area=0.1 --defense lgs --dataset folder:images,crop=224,resize=256 "
        "--model timm:mobilenetv2_100,pad_type=same --mean 0.5:0.5:0.5 --weights net.safetensors --images all "
        "--tier adaptive --effort quick --seed 7 --target 3"
    )


def computed(line: str) -> list[tuple[str, str, str, str]]:
    """What a command crosses: (attack, defense, tier, seed)."""
    words = shlex.split(line)
    given = dict(zip(words[2::2], words[3::2], strict=True))
    tiers = TIERS if given["--tier"] == "both" else (given["--tier"],)
    return list(
        product(split_specs(given["--attack"]), split_specs(given["--defense"]), tiers, given["--seed"].split(","))
    )


def test_the_commands_of_many_cells_compute_each_of_them_once_and_nothing_else() -> None:
    cells = [Cell("photos", "photos-cnn", "fgsm", "none", "oblivious", images=9)]
    for attack, defense, tier in product(("fgsm:eps=0.1,x=2", "patch"), ("lgs", "jpeg:quality=30", "none"), TIERS):
        cells += [replace(cells[0], attack=attack, defense=defense, tier=tier, seed=seed) for seed in (0, 3)]
    cells.remove(replace(cells[0], attack="patch", defense="lgs", tier="adaptive", seed=3))
    lines = commands(cells)
    wanted = [(one.attack, one.defense, one.tier, str(one.seed)) for one in cells]
    assert sorted(point for line in lines for point in computed(line)) == sorted(wanted)
    assert len(lines) == 5
    assert all("--images 9" in line for line in lines)


def test_cells_of_other_images_or_attacks_from_elsewhere_have_commands_of_their_own() -> None:
    cell = Cell("photos", "photos-cnn", "fgsm", "lgs", "oblivious")
    others = [replace(cell, images=7), replace(cell, attack="imported:hole")]
    assert commands([cell, *others, cell]) == [command(others[1]), command(cell), command(others[0])]


def test_the_markdown_names_commands_for_all_cells_of_a_board(tmp_path: Path) -> None:
    (text,) = [text for path, text in generate(saved(tmp_path, *LGS)).items() if path.parent == tmp_path / "boards"]
    lines = re.findall(r"<code>(bench run .*)</code>", text)
    assert len(lines) == 1
    assert sorted(computed(lines[0])) == sorted(product(["patch"], ["none", "lgs"], TIERS, ["0"]))


def test_a_command_cannot_smuggle_in_another() -> None:
    cell = Cell("photos", "photos-cnn", "patch; rm -rf /", "$(x)", "oblivious")
    assert "'patch; rm -rf /'" in command(cell)
    assert "'$(x)'" in command(cell)


@pytest.mark.parametrize(
    ("paper", "link"),
    [
        ("Brown et al. 2017, arXiv 1712.09665", "https://arxiv.org/abs/1712.09665"),
        ("arXiv:1807.01216v3", "https://arxiv.org/abs/1807.01216"),
        ("IEEE 2017", ""),
        ("javascript:alert(1)", ""),
    ],
)
def test_only_an_arxiv_id_becomes_a_link(paper: str, link: str) -> None:
    assert PluginLink("", "", paper=paper).arxiv == link


def test_a_description_holds_numbers_provenance_and_the_command() -> None:
    text = describe(outcome("patch", "lgs", "adaptive", 0.4, warnings=["3 % of something"]))
    for words in ("attacked accuracy", "40.0", "of 300", "torch", "3 % of something", "bench run --attack patch"):
        assert words in text


def test_a_description_of_a_failed_cell_says_why_and_has_no_number() -> None:
    text = describe(outcome("patch", "lgs", "adaptive", None))
    assert "timeout: took longer than 60 s" in text
    assert "accuracy" not in text


def test_a_report_on_60_records_takes_few_seconds_of_computing_imports_included(tmp_path: Path) -> None:
    defenses = ("none", "lgs", "jpeg", "tvm", "psd")
    saved(tmp_path, *(one for defense in defenses for attack in TRAITS for one in both(attack, defense, 0.5, 0.4)))
    code = "import sys, time; from pathlib import Path; from bench.report import generate\n"
    code += "generate(Path(sys.argv[1])); print(time.process_time())"
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3
