"""The pages of the site: what a cell, a defense and an attack tell, what is stale, and how large it all may get."""

from __future__ import annotations

import io
import os
import re
import time
from dataclasses import fields, replace
from html import unescape
from pathlib import Path

import pytest
import torch
from PIL import Image

from bench.plugins.fingerprints import code_fingerprint
from bench.plugins.registry import make_attack, make_defense
from bench.records.schema import Cell, Outcome
from bench.records.sheets import Sheet, load_sheet, save_sheet
from bench.records.store import Store
from bench.report import generate, write_report
from bench.report.html import jinja_environment, shrink
from bench.report.plugin_docs import plugin_docs
from bench.report.staleness import stale_cells
from bench.report.urls import cell_url, plugin_url

from ..builders import LGS, NASTY, PATCH, Tags, both, facts, outcome, saved
from . import synthetic


def page(folder: Path, address: str) -> str:
    """The words of a page, as one line."""
    text = generate(folder)[folder / "site" / address]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text.partition("</head>")[2])).split())


def links(folder: Path, address: str) -> list[str]:
    """Where a page leads."""
    path = folder / "site" / address
    hrefs = [attributes.get("href") or "" for tag, attributes in Tags(generate(folder)[path]).found if tag == "a"]
    return [os.path.normpath(path.parent / one.partition("#")[0]) for one in hrefs]


def test_the_page_of_a_cell_tells_numbers_costs_parameters_origin_and_command(tmp_path: Path) -> None:
    timed = [replace(one, seconds={"attack": 12.5}) for one in LGS]
    folder, address = saved(tmp_path, *timed), cell_url(LGS[3].cell)
    text = page(folder, address)
    for words in (
        "patch on lgs",
        "oblivious adaptive no defense , adaptive",
        "clean without an attack 95.0 92.4–96.7",
        "attacked of all images 60.0 55.1–64.7 40.0 35.3–44.9 20.0 16.4–24.2",
        "26.7 of 300",
        "forwards for an image 40 at most 41",
        "seconds, attack 12.5",
        "area=0.05",
        "device cpu",
        "2025-01-02",
        "bench run --attack patch --defense lgs --dataset cifar10 --model photos-cnn --images all --tier both",
    ):
        assert words in text, words
    store = Store(folder)
    wanted = [store.path(LGS[2].cell), store.path(LGS[3].cell)]
    wanted += [folder / "site" / plugin_url("attack", "patch"), folder / "site" / plugin_url("defense", "lgs")]
    assert set(map(str, wanted)) <= set(links(folder, address))


def test_the_page_of_a_cell_tells_which_view_gave_the_strongest_attack(tmp_path: Path) -> None:
    rest = [None] * 396
    through = {"through bare": [1.0, 0.0, 0.0, 0.0, *rest], "through <b>": [0.0, 1.0, 1.0, 0.0, *rest]}
    found = replace(facts(0.4), noted=through | {"zero_gradient": [1.0, *rest, None, None, None]})
    folder = saved(tmp_path, LGS[2], replace(LGS[3], facts=found))
    assert "strongest view <b> on 2, bare on 1 images" in page(folder, cell_url(LGS[3].cell))
    assert "strongest view" not in page(saved(tmp_path / "other", LGS[2]), cell_url(LGS[2].cell))


def test_the_page_of_a_cell_tells_what_each_stage_broke_through_which_view(tmp_path: Path) -> None:
    rest = [None] * 397
    through = {"through bare": [1.0, 0.0, 0.0, *rest], "through own": [None, 1.0, 1.0, *rest]}
    reached = [1.0, 1.0, 1.0, *[0.0] * 397]
    staged = replace(facts(0.4), reached=reached, noted=through | {"stage": [0.0, 2.0, 2.0, *rest]})
    folder = saved(tmp_path, LGS[2], replace(LGS[3], facts=staged))
    text = page(folder, cell_url(LGS[3].cell))
    assert "images broken by stage through bare through own in all 0 1 0 1 2 0 2 2" in text
    assert "Stages, oblivious" not in text


def test_every_anchor_that_a_page_links_to_is_there(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS)
    tags = {path: Tags(text).found for path, text in generate(folder).items() if path.suffix == ".html"}
    anchors = [
        ((path.parent / address if address else path).resolve(), anchor)
        for path, found in tags.items()
        for tag, attributes in found
        for address, mark, anchor in [(attributes.get("href") or "").partition("#")]
        if tag == "a" and mark and not address.startswith("http")
    ]
    assert len(anchors) > 10
    ids = {path.resolve(): {attributes.get("id") for _, attributes in found} for path, found in tags.items()}
    assert [(path.name, anchor) for path, anchor in anchors if anchor not in ids[path]] == []


def test_a_page_says_nothing_of_a_tier_that_it_lacks(tmp_path: Path) -> None:
    text = page(saved(tmp_path, LGS[0], LGS[2]), cell_url(LGS[2].cell))
    assert "--tier oblivious" in text
    assert "adaptive" not in text


def test_a_cell_that_failed_has_a_page_that_says_so_and_no_number(tmp_path: Path) -> None:
    lost = outcome("boom", "lgs", "oblivious", None, attack=None)
    failed = outcome("patch", "jpeg", "adaptive", None)
    folder = saved(tmp_path, *LGS, failed, lost)
    for one in (failed, lost):
        text = page(folder, cell_url(one.cell))
        assert "timeout: took longer than 60 s" in text
        assert "Accuracy under attack" not in text
        assert f"--attack {one.cell.attack}" in text
    assert "2 without a number or stale" in page(folder, "index.html")
    front = page(folder, "experiments.html")
    assert "patch on jpeg, adaptive" in front


@pytest.mark.parametrize(
    ("status", "word"), [("timeout", "timeout"), ("out-of-memory", "memory"), ("not-applicable", "n/a")]
)
def test_the_page_of_a_defense_says_why_it_has_no_number(status: str, word: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS, replace(outcome("patch", "jpeg", "adaptive", None), status=status))
    assert f" patch {word} " in page(folder, plugin_url("defense", "jpeg"))


def made(defense: str, code: str, **more: object) -> Outcome:
    told = {"data": "d", "weights": "w", "protocol": "1", "attack": plugin_docs("attack", "patch").fingerprint}
    return outcome("patch", defense, "adaptive", 0.4, fingerprints=told | {"defense": code}, **more)


def test_a_cell_that_was_computed_with_other_code_is_stale_and_its_page_says_so(tmp_path: Path) -> None:
    old, new = made("lgs", "0123456789ab"), made("jpeg", plugin_docs("defense", "jpeg").fingerprint)
    assert stale_cells([old, new]) == {old.cell: "computed with different code of the defense"}
    folder = saved(tmp_path, old, new)
    assert "1 stale cell: computed with different code of the defense" in page(folder, "experiments.html")
    assert "stale: computed with different code of the defense" in page(folder, cell_url(old.cell))
    assert "stale" not in page(folder, cell_url(new.cell))


def test_a_cell_that_disagrees_with_the_newest_record_of_its_data_is_stale() -> None:
    newest = replace(LGS[0], fingerprints={"data": "d2", "weights": "w1"}, date="2026-01-01")
    other_seed = outcome("patch", "lgs", "oblivious", 0.5, seed=1)
    assert stale_cells([*LGS[1:], newest, other_seed]) == {one.cell: "computed with different data" for one in LGS[1:]}


@pytest.mark.parametrize("text", ["lgs", "jpeg:quality=30", "jpeg+median:size=5"])
def test_the_fingerprint_that_is_read_is_that_of_records(text: str) -> None:
    assert plugin_docs("defense", text).fingerprint == code_fingerprint(make_defense(text))
    assert plugin_docs("attack", "patch:area=0.1").fingerprint == code_fingerprint(make_attack("patch"))


def test_of_strange_plugins_there_is_nothing_to_tell() -> None:
    for text in ("imported:breaker", NASTY, "acme-blur", "jpeg+acme-blur", ""):
        assert plugin_docs("defense", text).fingerprint == ""


def test_the_page_of_a_defense_tells_its_places_flags_cells_and_code(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS, *both("patch", "lgs", 0.5, 0.2, dataset="digits"))
    text = page(folder, plugin_url("defense", "lgs"))
    for words in ("Local gradients smoothing", "cifar10 · photos-cnn", "patch ≤ 5 %", "digits", "class LGS("):
        assert words in text, words
    assert text.count("S28 diversity : Partial evaluation") == 2  # once for each data set
    assert text.count("patch patch ≤ 5 % standard · 400 images 60.0 55.1–64.7") == 1
    assert "2 with at least one cell" in page(folder, "defenses.html")


def test_a_finding_that_boards_share_is_listed_once_with_the_boards_it_concerns(tmp_path: Path) -> None:
    larger = {"attack_traits": {**PATCH, "budget": "patch ≤ 10 %"}}
    records = [outcome("patch", "lgs", "adaptive", 0.4), outcome("patch:area=0.1", "lgs", "adaptive", 0.3, **larger)]
    third = outcome("fgsm", "lgs", "adaptive", facts(0.4, n=100))
    text = page(saved(tmp_path / "two", *records), plugin_url("defense", "lgs"))
    assert text.count("S28 diversity : Partial evaluation: no score-based attack.") == 1
    assert text.count("S12 black box against white box") == 1
    text = page(saved(tmp_path / "three", *records, third), plugin_url("defense", "lgs"))
    assert re.search(r"S33 sample size : ± \S+ points with 100 images, which widens the ties. L∞ ≤ 8/255", text)
    assert "No check fired." not in text


def test_warnings_are_told_with_their_cells_and_marked_elsewhere(tmp_path: Path) -> None:
    warned = outcome("patch", "lgs", "adaptive", 0.4, warnings=["3 % of something"])
    folder = saved(tmp_path, *LGS[:3], warned)
    assert "W adaptive: 3 % of something" in page(folder, cell_url(warned.cell))
    for address in ("experiments.html", plugin_url("defense", "lgs")):
        text = page(folder, address)
        assert "3 % of something" not in text
        assert "bench show prints them for each cell." in text
    assert "patch W patch ≤ 5 %" in page(folder, plugin_url("defense", "lgs"))


def test_what_stands_between_backticks_is_code() -> None:
    template = jinja_environment().from_string("{{ text | ticked }}")
    assert template.render(text="`a<b` & c") == "<code>a&lt;b</code> &amp; c"


def test_a_smaller_page_is_the_same_page(tmp_path: Path) -> None:
    for path, text in generate(saved(tmp_path, *LGS)).items():
        if path.suffix == ".html":
            small = shrink(text)
            assert len(small) < len(text) or path.parent == tmp_path
            assert Tags(small).found == Tags(text).found
            assert re.sub(r"<[^>]*>", "", small) == re.sub(r"<[^>]*>", "", text)


def test_the_page_of_an_attack_lists_every_defense_that_met_it(tmp_path: Path) -> None:
    text = page(saved(tmp_path, *LGS), plugin_url("attack", "patch"))
    assert "threat model patch" in text
    assert re.search(r"lgs patch ≤ 5 %.* 95\.0 \S+ 60\.0 .* 40\.0 35\.3–44\.9", text)
    assert re.search(r"none patch ≤ 5 %.* 20\.0", text)


def test_the_front_page_keeps_the_tiers_and_the_proofs_apart(tmp_path: Path) -> None:
    proven = facts(0.6, certified=[1] * 40 + [0] * 360)
    folder = saved(tmp_path, *LGS, outcome("patch", "jpeg", "adaptive", proven))
    text = generate(folder)[folder / "site" / "experiments.html"]
    heads = re.findall(r'<th scope="colgroup"[^>]*class="group (\w*)">([^<\n]*)', text)
    assert heads == [("adaptive", "adaptive attacker"), ("oblivious", "oblivious attacker"), ("certified", "proof")]
    assert "seed 0" in page(folder, "experiments.html")


def test_training_has_a_column_with_its_time(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS, outcome("patch", "jpeg", "adaptive", 0.3, seconds={"train": 600.0}))
    text = page(folder, "experiments.html")
    assert "training" in text
    assert "10 min" in text


def test_a_submitted_defense_leads_to_its_code_and_its_verdict(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS, *both("patch", "acme-blur:size=3", 0.5, 0.2), *both("patch", "../records", 0.5, 0.2))
    (folder / "submissions" / "acme-blur" / "code").mkdir(parents=True)
    (folder / "submissions" / "acme-blur" / "code" / "acme_blur.py").touch()
    (folder / "submissions" / "acme-blur" / "verdict.json").touch()
    write_report(folder)
    for defense, count in (("acme-blur:size=3", 2), ("../records", 0)):
        address = folder / "site" / plugin_url("defense", defense)
        targets = re.findall(r'href="(\.\./\.\./submissions/[^"]*)', address.read_text())
        assert len(targets) == count
        assert all((address.parent / target).is_file() for target in targets)


def test_pages_of_different_things_never_share_an_address() -> None:
    cell = LGS[0].cell
    others = [
        replace(cell, **{name: value})
        for name, value in {
            "dataset": "digits", "model": "m", "attack": "a", "defense": "d",
            "goal": "targeted", "effort": "quick", "images": 7,
        }.items()
    ]  # fmt: skip
    assert len({cell_url(one) for one in (cell, *others)}) == 8
    assert cell_url(replace(cell, seed=5, tier="adaptive")) == cell_url(cell)
    texts = ["lgs", "LGS", "lgs:", "jpeg:quality=30", "jpeg+quality-30", "jpeg quality 30", "con/../x", "é", ""]
    assert len({plugin_url("defense", one).lower() for one in texts}) == len(texts)


def test_pictures_that_were_made_are_on_the_page_of_their_cell(tmp_path: Path) -> None:
    folder = saved(tmp_path, *LGS)
    write_report(folder)
    sheet = Sheet(("clean", "attacked"), ("cat 99 % → <b>dog</b> 80 %",), 64, 32, LGS[3].fingerprints)
    save_sheet(Store(folder), LGS[3].cell, sheet, b"RIFF")
    assert load_sheet(Store(folder), [LGS[2]]) is None
    assert load_sheet(Store(folder), [replace(LGS[3], fingerprints={"data": "other"})]) is None
    assert write_report(folder) == [folder / "site" / cell_url(LGS[3].cell)]
    text = generate(folder)[folder / "site" / cell_url(LGS[3].cell)]
    (source,) = re.findall(r'<img src="(\S*)" width="64" height="32"', text)
    assert (folder / "site" / "cells" / source).resolve().read_bytes() == b"RIFF"
    assert "cat 99 % → &lt;b&gt;dog&lt;/b&gt; 80 %" in text


def test_a_sheet_shows_what_was_changed_and_where_the_model_looks() -> None:
    from bench.engine.pictures import panels, rows_to_show, sheet_of
    from bench.engine.run import run_cell
    from bench.engine.setting import Setting

    cell = Cell("photos", "photos-cnn", "occlusion:area=0.1", "lgs", "oblivious", effort="quick", images=6)
    computed = run_cell(cell, Setting("photos", "photos-cnn", images=6), lambda share, doing: None)
    shown = panels(computed, rows_to_show(computed, 3))
    changed = shown["mask"].expand_as(shown["clean"]) > 0
    assert 0 < changed.float().mean() < 0.11
    assert torch.equal(shown["clean"][~changed], shown["attacked"][~changed])
    assert not torch.equal(shown["defended"], shown["attacked"])
    assert torch.equal(shown["gradient"].amax((1, 2, 3)), torch.ones(3))
    sheet, picture = sheet_of(computed, 3)
    opened = Image.open(io.BytesIO(picture))
    assert (opened.width, opened.height) == (sheet.width, sheet.height) == (32 * len(shown), 32 * 3)
    assert len(sheet.rows) == 3
    assert all("→" in row for row in sheet.rows)


def test_a_large_board_is_quickly_made_and_its_front_page_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 defenses × 15 attacks × 2 attackers, with pictures."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # the records here need not outlive a power cut
    cells = synthetic.fill(tmp_path, datasets=1)
    assert len(cells) == 25 * 15 * 2
    made_from = {"data": cells[0].dataset, "weights": cells[0].model, "protocol": "1"}
    for cell in cells[:200]:
        save_sheet(Store(tmp_path), cell, Sheet(("clean", "attacked"), ("a → b",), 64, 32, made_from), b"RIFF")
    started = time.process_time()
    write_report(tmp_path)
    assert time.process_time() - started < 20  # seconds of computing, however busy the machine is
    assert (tmp_path / "index.html").stat().st_size < 200_000
    pages = list((tmp_path / "site" / "cells").iterdir())
    assert len(pages) == len(cells) / 2  # both tiers of a cell share one
    assert sum(one.read_text().count("<img") for one in pages) == 200


def test_inherited_parameters_have_meanings_too() -> None:
    apr = plugin_docs("defense", "apr")
    assert apr.descriptions[0].startswith("Adaptive Pixel Resilience")
    for defense in ("apr", "volumization", "retrained", "derandomized-smoothing"):
        meanings = plugin_docs("defense", defense).parameters
        names = [one.name for one in fields(make_defense(defense))]  # type: ignore[arg-type]  # dataclasses
        assert [name for name in names if not meanings.get(name)] == []


def test_the_front_page_counts_defenses_without_the_bare_model(tmp_path: Path) -> None:
    Store(tmp_path).save(outcome("patch", "none", "adaptive", 0.3, defense_traits={"kind": "none"}))
    for one in both("patch", "lgs", 0.9, 0.8):
        Store(tmp_path).save(one)
    assert "1 board · 1 defense · 1 attack · 3 cells" in page(tmp_path, "index.html")
