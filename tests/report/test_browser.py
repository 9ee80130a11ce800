"""The site in a real browser: it asks nobody, sorts, filters, remembers in its address, and works from the keyboard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.records.store import Store
from bench.report import write_report

from . import synthetic
from .browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
ROOT = Path(__file__).resolve().parent.parent.parent

SHOWN = """(() => {
  const seen = (one) => one.getClientRects().length > 0;
  return [...document.querySelectorAll("section.board")].filter(seen).map((board) => ({
    id: board.id,
    ...board.dataset,
    columns: [...board.querySelectorAll("th[data-column]")].filter(seen).map((one) => ({...one.dataset, text: one.textContent})),
    rows: [...board.querySelectorAll("tbody tr")].filter(seen).map((row) => ({
      kind: row.dataset.kind, name: row.querySelector(".name").textContent, cells: [...row.cells].filter(seen).length})),
  }));
})()"""  # noqa: E501  # one script
CHOOSE = """([name, value]) => {
  const field = document.querySelector(`#filters [name=${name}]`);
  field.value = value;
  field.dispatchEvent(new Event("input", {bubbles: true}));
}"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as one:
        one.screen(1400, 900)
        yield one


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many boards."""
    folder = tmp_path_factory.mktemp("large")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)  # nothing here has to outlive a power cut
        cells = synthetic.fill(folder, defenses=6, datasets=2)
    store = Store(folder)
    broken = store.load(cells[-1])
    assert broken
    broken.status, broken.reason, broken.facts = "timeout", "took longer than 60 s", None
    store.save(broken)
    write_report(folder)
    return folder / "site"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of the records that come with the project."""
    folder = tmp_path_factory.mktemp("real")
    for name in ("records", "patches", "pictures", "roc"):
        if (ROOT / "results" / name).is_dir():
            shutil.copytree(ROOT / "results" / name, folder / name)
    if not any(Store(folder).outcomes()):
        pytest.skip("the project has no records")
    write_report(folder)
    return folder / "site"


def some(site: Path) -> list[Path]:
    """A page of every kind."""
    cells = sorted((site / "cells").iterdir(), key=lambda one: one.stat().st_size)
    lists = [one for one in site.glob("*.html")]
    return [*lists, cells[0], cells[-1], next((site / "defenses").iterdir()), next((site / "attacks").iterdir())]


def choose(browser: Browser, name: str, value: str) -> list[dict[str, Any]]:
    """What is shown after a choice."""
    browser.run(f"({CHOOSE})({json.dumps([name, value])})")
    shown: list[dict[str, Any]] = browser.run(SHOWN)
    return shown


@pytest.mark.parametrize("which", ["site", "real"])
def test_no_page_asks_another_host_or_complains(which: str, browser: Browser, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    browser.requests.clear()
    browser.complaints.clear()
    for page in some(folder):
        browser.open(page.as_uri())
        assert browser.run("getComputedStyle(document.body).maxWidth") != "none"  # the style sheet has come
    assert browser.requests
    assert {address.partition(":")[0] for address in browser.requests} <= {"file", "data", "about"}
    assert browser.complaints == []


@pytest.mark.parametrize("which", ["site", "real"])
def test_a_phone_scrolls_sideways_only_inside_tables(
    which: str, browser: Browser, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    browser.screen(360, 740)
    for page in some(folder):
        browser.open(page.as_uri())
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert browser.run("document.documentElement.scrollWidth") <= 360, page
    browser.screen(1400, 900)


def test_every_column_sorts_both_ways_and_back(browser: Browser, site: Path) -> None:
    for page in some(site):
        browser.open(page.as_uri())
        wrong = browser.run("""(() => {
          const wrong = [];
          for (const table of document.querySelectorAll("table.sortable")) {
            const before = [...table.tBodies[0].rows];
            for (const header of table.querySelectorAll("th[data-column]:not(.still)")) {
              const seen = (cell) => {
                if (!header.matches(".n, .rank")) return (cell.querySelector("a") || cell).textContent.trim() || undefined;
                const [, number, unit] = cell.innerText.trim().match(/^[≤≥ ]*(−?[\\d.]+) ?(min|h)?/) || [];
                return number && Number(number.replace("−", "-")) * ({min: 60, h: 3600}[unit] || 1);
              };
              const key = (row) => seen(row.cells[header.dataset.column]);
              const button = header.querySelector("button");
              const ways = [];
              for (const _ of [1, 2]) {
                button.click();
                const way = header.getAttribute("aria-sort");
                ways.push(way);
                const told = [...table.tBodies[0].rows].map(key);
                const known = told.filter((one) => one !== undefined);
                const up = (a, b) => typeof a === "number" ? a <= b : a.localeCompare(b) <= 0;
                const inOrder = known.every((one, i) => !i || (way === "ascending" ? up(known[i - 1], one) : up(one, known[i - 1])));
                const lastOnes = told.slice(known.length).every((one) => one === undefined);
                if (!inOrder || !lastOnes) wrong.push([header.textContent, way, told]);
              }
              button.click();
              if (String(ways.sort()) !== "ascending,descending") wrong.push([header.textContent, ways]);
              if (before.some((row, i) => row !== table.tBodies[0].rows[i])) wrong.push([header.textContent, "not back"]);
            }
          }
          return wrong;
        })()""")  # noqa: E501  # one script
        assert wrong == [], page
    assert browser.run("document.querySelectorAll('table.sortable th[data-column]').length") > 0


def fits(name: str, value: str, column: dict[str, Any]) -> bool:
    """Whether a column belongs to this attacker or attack, or to none; a proof is against all attacks."""
    tier = column.get("tier")
    return not tier or column.get(name) == value or (name == "attack" and tier == "certified")


def test_every_filter_shows_what_it_says_and_nothing_else(browser: Browser, site: Path) -> None:
    browser.open((site / "index.html").as_uri())
    everything = browser.run(SHOWN)
    filters = browser.run(
        "Object.fromEntries([...document.querySelectorAll('#filters select')].map((one) => "
        "[one.name, [...one.options].map((option) => option.value).filter(Boolean)]))"
    )
    assert {"dataset", "threat", "kind", "tier", "attack"} <= filters.keys()
    for name, values in filters.items():
        for value in values:
            shown = choose(browser, name, value)
            assert shown, (name, value)
            if name in ("dataset", "threat", "model", "goal", "effort"):
                assert shown == [board for board in everything if board[name] == value]
            for board in shown:
                whole = next(one for one in everything if one["id"] == board["id"])
                if name == "kind":
                    assert [row["name"] for row in board["rows"]] == [
                        row["name"] for row in whole["rows"] if row["kind"] in (value, "none")
                    ]
                if name in ("tier", "attack"):
                    kept = [one for one in whole["columns"] if fits(name, value, one)]
                    assert [one["column"] for one in board["columns"]] == [one["column"] for one in kept]
                    assert {row["cells"] for row in board["rows"]} == {len(kept)}
        assert choose(browser, name, "") == everything


def test_search_keeps_the_rows_with_all_its_words(browser: Browser, site: Path) -> None:
    browser.open((site / "index.html").as_uri())
    assert {row["name"] for board in choose(browser, "find", "shield 3") for row in board["rows"]} == {"shield-03"}
    assert choose(browser, "find", "nothing of that name") == []
    assert browser.run("document.getElementById('count').value").startswith("0 of 6 boards")


def test_columns_can_be_chosen(browser: Browser, site: Path) -> None:
    browser.open((site / "index.html").as_uri())
    labels = browser.run("[...document.querySelectorAll('#filters [name=column]')].map((one) => one.value)")
    assert {"rank", "clean", "δ", "β", "worst case", "patch", "certified"} <= set(labels)
    for label in labels:
        box = f"[...document.querySelectorAll('[name=column]')].find((one) => one.value === {json.dumps(label)})"
        browser.run(f"{box}.click()")
        if label == "intervals":
            assert not browser.run("[...document.querySelectorAll('.n i')].some((one) => one.getClientRects().length)")
        assert all(one.get("label") != label for board in browser.run(SHOWN) for one in board["columns"])
        browser.run(f"{box}.click()")
    assert all(one.get("label") for board in browser.run(SHOWN) for one in board["columns"] if one["column"] != "1")


def test_colours_stay_with_their_columns_and_bars_with_their_numbers(browser: Browser, site: Path) -> None:
    browser.open((site / "index.html").as_uri())
    tints = """[...document.querySelectorAll("table.board")].every((table) => {
      const shown = (which) => [...table.querySelectorAll(which)].filter((one) => !one.hidden);
      const heads = shown("th[data-column]").map((one) => one.matches(".rank") ? "rank" : one.dataset.tier || "");
      return String(shown("col").map((one) => one.className.replace(" edge", ""))) === String(heads);
    })"""
    assert browser.run(tints)
    for label in ("rank", "δ", "patch", "clean"):
        box = f"[...document.querySelectorAll('[name=column]')].find((one) => one.value === {json.dumps(label)})"
        browser.run(f"{box}.click()")
        assert browser.run(tints), label
        browser.run(f"{box}.click()")
    bars = browser.run("""[...document.querySelectorAll("table.board td s")].map((bar) => [
      bar.parentElement.innerText.split("\\n").join(" ").replace("–", " "),
      ["--a", "--l", "--h"].map((one) => parseFloat(bar.style.getPropertyValue(one)).toFixed(1)).join(" ")])""")
    assert len(bars) > 50
    assert all(text.endswith(told) for text, told in bars)


def test_the_address_restores_the_state(browser: Browser, site: Path) -> None:
    browser.open((site / "index.html").as_uri())
    plain = browser.run(SHOWN)
    choose(browser, "kind", "detector")
    choose(browser, "tier", "adaptive")
    choose(browser, "find", "shield")
    browser.run("[...document.querySelectorAll('#filters [name=column]')].find((one) => one.value === 'δ').click()")
    browser.run("document.querySelector('table.board th[data-label=clean] button').click()")
    before, address = browser.run(SHOWN), browser.run("location.href")
    order = "[...document.querySelectorAll('table.board tbody')].map((one) => one.textContent)"
    rows = browser.run(order)
    assert before != plain
    browser.open((site / "index.html").as_uri())
    assert browser.run(SHOWN) == plain
    browser.open(address)
    assert browser.run(SHOWN) == before
    assert browser.run(order) == rows
    assert browser.run("document.querySelector('th[data-label=clean]').getAttribute('aria-sort')") == "descending"
    browser.run("document.querySelector('#filters [type=reset]').click()")
    browser.run("new Promise((done) => setTimeout(done, 50))")
    assert browser.run(SHOWN) == plain


def test_the_keyboard_reaches_and_works_everything(browser: Browser, real: Path) -> None:
    browser.open((real / "index.html").as_uri())
    wanted = browser.run("""(() => {
      const all = "a[href], button, select, input, summary, [tabindex='0']";
      window.left = new Set([...document.querySelectorAll(all)].filter((one) => one.checkVisibility({visibilityProperty: true})));
      return window.left.size;
    })()""")  # noqa: E501  # one script
    for _ in range(2 * wanted):
        browser.press("Tab", 9)
        if browser.run("(window.left.delete(document.activeElement), window.left.size)") == 0:
            break
    assert browser.run("[...window.left].map((one) => one.outerHTML)") == []
    browser.run("document.querySelector('th[data-label=clean] button').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.run("document.querySelector('th[data-label=clean]').getAttribute('aria-sort')") == "descending"
    browser.run("document.querySelector('.columns summary').focus()")
    browser.press("Enter", 13, "\r")
    browser.press("Tab", 9)
    browser.press(" ", 32, " ")
    assert browser.run("location.hash").startswith("#?hide=")


def test_dark_and_print_have_looks_of_their_own(browser: Browser, site: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open((site / "index.html").as_uri())
    light = browser.run(ground)
    browser.screen(1400, 900, dark=True)
    assert browser.run(ground) != light
    browser.screen(1400, 900, medium="print")
    assert not browser.run("[...document.querySelectorAll('#filters, nav')].some((one) => one.getClientRects().length)")
    assert browser.run("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"
    browser.screen(1400, 900)


def test_without_scripts_everything_is_readable(browser: Browser, site: Path) -> None:
    browser.open((site / "index.html").as_uri())
    everything = browser.run("[...document.querySelectorAll('tbody')].map((one) => one.innerText)")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open((site / "index.html").as_uri())
        assert browser.run("document.getElementById('filters').getClientRects().length") == 0
        assert browser.run("[...document.querySelectorAll('tbody')].map((one) => one.innerText)") == everything
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
