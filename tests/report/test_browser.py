"""The site in a real browser: it asks nobody, sorts, filters, remembers in its address, and works from the keyboard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from bench.records.store import Store
from bench.report import write_report

from . import synthetic

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
DESK, PHONE = ViewportSize(width=1400, height=900), ViewportSize(width=360, height=740)
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
def chromium() -> Iterator[Browser]:
    """The system's own browser; nothing is downloaded, and it asks no host by itself."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    with chromium.new_page(viewport=DESK) as fresh:
        yield fresh


def visit(page: Page, address: str) -> None:
    """Loads a page anew, even where only what follows # differs."""
    page.goto("about:blank")
    page.goto(address)


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
    lists = [site.parent / "index.html", *site.glob("*.html")]
    return [*lists, cells[0], cells[-1], next((site / "defenses").iterdir()), next((site / "attacks").iterdir())]


def choose(page: Page, name: str, value: str) -> list[dict[str, Any]]:
    """What is shown after a choice."""
    page.evaluate(CHOOSE, [name, value])
    shown: list[dict[str, Any]] = page.evaluate(SHOWN)
    return shown


@pytest.mark.parametrize("which", ["site", "real"])
def test_no_page_asks_another_host_or_complains(which: str, page: Page, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    for file in some(folder):
        visit(page, file.as_uri())
        assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none"  # the style sheet has come
    assert requests
    assert {address.partition(":")[0] for address in requests} <= {"file", "data", "about"}
    assert complaints == []


@pytest.mark.parametrize("which", ["site", "real"])
def test_a_phone_scrolls_sideways_only_inside_tables(which: str, page: Page, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    page.set_viewport_size(PHONE)
    for file in some(folder):
        visit(page, file.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, file


def test_every_column_sorts_both_ways_and_back(page: Page, site: Path) -> None:
    for file in some(site):
        visit(page, file.as_uri())
        wrong = page.evaluate("""(() => {
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
        assert wrong == [], file
    assert page.evaluate("document.querySelectorAll('table.sortable th[data-column]').length") > 0


def fits(name: str, value: str, column: dict[str, Any]) -> bool:
    """Whether a column belongs to this attacker or attack, or to none; a proof is against all attacks."""
    tier = column.get("tier")
    return not tier or column.get(name) == value or (name == "attack" and tier == "certified")


def test_every_filter_shows_what_it_says_and_nothing_else(page: Page, site: Path) -> None:
    visit(page, (site / "experiments.html").as_uri())
    everything = page.evaluate(SHOWN)
    filters = page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#filters select')].map((one) => "
        "[one.name, [...one.options].map((option) => option.value).filter(Boolean)]))"
    )
    assert {"dataset", "threat", "kind", "tier", "attack"} <= filters.keys()
    for name, values in filters.items():
        for value in values:
            shown = choose(page, name, value)
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
        assert choose(page, name, "") == everything


def test_search_keeps_the_rows_with_all_its_words(page: Page, site: Path) -> None:
    visit(page, (site / "experiments.html").as_uri())
    assert {row["name"] for board in choose(page, "find", "shield 3") for row in board["rows"]} == {"shield-03"}
    assert choose(page, "find", "nothing of that name") == []
    assert page.evaluate("document.getElementById('count').value").startswith("0 of 6 boards")


def test_columns_can_be_chosen(page: Page, site: Path) -> None:
    visit(page, (site / "experiments.html").as_uri())
    labels = page.evaluate("[...document.querySelectorAll('#filters [name=column]')].map((one) => one.value)")
    assert {"rank", "clean", "δ", "β", "worst case", "patch", "certified"} <= set(labels)
    for label in labels:
        box = f"[...document.querySelectorAll('[name=column]')].find((one) => one.value === {json.dumps(label)})"
        page.evaluate(f"{box}.click()")
        if label == "intervals":
            assert not page.locator(".n i").filter(visible=True).count()
        assert all(one.get("label") != label for board in page.evaluate(SHOWN) for one in board["columns"])
        page.evaluate(f"{box}.click()")
    assert all(one.get("label") for board in page.evaluate(SHOWN) for one in board["columns"] if one["column"] != "1")


def test_colours_stay_with_their_columns_and_bars_with_their_numbers(page: Page, site: Path) -> None:
    visit(page, (site / "experiments.html").as_uri())
    tints = """[...document.querySelectorAll("table.board")].every((table) => {
      const shown = (which) => [...table.querySelectorAll(which)].filter((one) => !one.hidden);
      const heads = shown("th[data-column]").map((one) => one.matches(".rank") ? "rank" : one.dataset.tier || "");
      return String(shown("col").map((one) => one.className.replace(" edge", ""))) === String(heads);
    })"""
    assert page.evaluate(tints)
    for label in ("rank", "δ", "patch", "clean"):
        box = f"[...document.querySelectorAll('[name=column]')].find((one) => one.value === {json.dumps(label)})"
        page.evaluate(f"{box}.click()")
        assert page.evaluate(tints), label
        page.evaluate(f"{box}.click()")
    bars = page.evaluate("""[...document.querySelectorAll("table.board td s")].map((bar) => [
      bar.parentElement.innerText.split("\\n").join(" ").replace("–", " "),
      ["--a", "--l", "--h"].map((one) => parseFloat(bar.style.getPropertyValue(one)).toFixed(1)).join(" ")])""")
    assert len(bars) > 50
    assert all(text.endswith(told) for text, told in bars)


def test_the_address_restores_the_state(page: Page, site: Path) -> None:
    visit(page, (site / "experiments.html").as_uri())
    plain = page.evaluate(SHOWN)
    choose(page, "kind", "detector")
    choose(page, "tier", "adaptive")
    choose(page, "find", "shield")
    page.evaluate("[...document.querySelectorAll('#filters [name=column]')].find((one) => one.value === 'δ').click()")
    page.evaluate("document.querySelector('table.board th[data-label=clean] button').click()")
    before, address = page.evaluate(SHOWN), page.evaluate("location.href")
    order = "[...document.querySelectorAll('table.board tbody')].map((one) => one.textContent)"
    rows = page.evaluate(order)
    assert before != plain
    visit(page, (site / "experiments.html").as_uri())
    assert page.evaluate(SHOWN) == plain
    visit(page, address)
    assert page.evaluate(SHOWN) == before
    assert page.evaluate(order) == rows
    assert page.evaluate("document.querySelector('th[data-label=clean]').getAttribute('aria-sort')") == "descending"
    page.evaluate("document.querySelector('#filters [type=reset]').click()")
    page.evaluate("new Promise((done) => setTimeout(done, 50))")
    assert page.evaluate(SHOWN) == plain


def test_the_keyboard_reaches_and_works_everything(page: Page, site: Path) -> None:
    visit(page, (site / "experiments.html").as_uri())
    wanted = page.evaluate("""(() => {
      const all = "a[href], button, select, input, summary, [tabindex='0']";
      window.left = new Set([...document.querySelectorAll(all)].filter((one) => one.checkVisibility({visibilityProperty: true})));
      return window.left.size;
    })()""")  # noqa: E501  # one script
    for _ in range(2 * wanted):
        page.keyboard.press("Tab")
        if page.evaluate("(window.left.delete(document.activeElement), window.left.size)") == 0:
            break
    assert page.evaluate("[...window.left].map((one) => one.outerHTML)") == []
    page.evaluate("document.querySelector('th[data-label=clean] button').focus()")
    page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('th[data-label=clean]').getAttribute('aria-sort')") == "descending"
    page.evaluate("document.querySelector('.columns summary').focus()")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.evaluate("location.hash").startswith("#?hide=")


def test_dark_and_print_have_looks_of_their_own(page: Page, site: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    visit(page, (site / "experiments.html").as_uri())
    light = page.evaluate(ground)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(ground) != light
    page.emulate_media(color_scheme="light", media="print")
    assert not page.locator("#filters, nav").filter(visible=True).count()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflowX") == "visible"


def test_without_scripts_everything_is_readable(chromium: Browser, page: Page, site: Path) -> None:
    address = (site / "experiments.html").as_uri()
    page.goto(address)
    everything = page.locator("tbody").all_inner_texts()
    assert everything
    with chromium.new_page(viewport=DESK, java_script_enabled=False) as plain:
        plain.goto(address)
        assert not plain.locator("#filters").is_visible()
        assert plain.locator("tbody").all_inner_texts() == everything
