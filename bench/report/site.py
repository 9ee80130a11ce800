"""Boards as a site: a front page with all of them, and a page for each defense, attack and cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from bench.core.text import plain
from bench.plugins.registry import Kind
from bench.records.command import commands
from bench.records.roc import load_rocs
from bench.records.schema import TIERS, Cell, Latency, Outcome
from bench.records.sheets import Sheet, load_sheet
from bench.records.store import Store
from bench.report.board import Board, Entry, PluginLink
from bench.report.boards import entry_of, provenance
from bench.report.cell_page import Page
from bench.report.charts.all import Chart, charts
from bench.report.checks import NOT_RUN
from bench.report.grouping import Sample
from bench.report.html import asset, lean, render
from bench.report.legend import told_checks
from bench.report.plugin_docs import about
from bench.report.staleness import stale_cells
from bench.report.summary import Pair, Place, pairs
from bench.report.urls import plugin_page


@dataclass(frozen=True)
class Site:
    """Everything that the pages tell, from the records of a results folder.

    Attributes:
        boards: in order.
        homeless: records whose attack could never be made.
        latencies: how long defenses take.
        store: where pictures and records lie.
    """

    boards: Sequence[Board]
    homeless: Sequence[Outcome]
    latencies: Sequence[Latency]
    store: Store

    @cached_property
    def links(self) -> dict[str, str]:
        """The pages that every page leads to: heading -> address from the site's root."""
        found = {"Boards": "index.html", "Defenses": "defenses.html", "Attacks": "attacks.html"}
        if self.charts:
            found["Curves"] = "curves.html"
        if (self.store.folder / "tables" / "index.html").is_file():
            found["Tables of the papers"] = "../tables/index.html"
        return found

    def files(self) -> Iterator[tuple[str, str]]:
        """(address, content) of everything but the curves."""
        yield "page.css", asset("page.css") + asset("svg_style.css")
        yield "page.js", asset("page.js")
        yield "index.html", self._page("index", "", boards=self.boards, checks=told_checks(), not_run=NOT_RUN)
        for kind in ("attack", "defense"):
            plugins = self.plugins(kind)
            yield f"{kind}s.html", self._page("plugins", "", kind=kind, plugins=plugins)
            for plugin in plugins:
                yield plugin_page(kind, plugin.key), self._page("plugin", "../", kind=kind, plugin=plugin)
        for address, pages in self._by_address.items():
            yield address, self._page("cell", "../", pages=pages)
        if self.charts:
            yield "curves.html", self._page("curves", "")
        for chart in self.charts:
            yield from ((f"curves/{name}", content) for name, content in chart.files)

    def _page(self, template: str, root: str, **given: object) -> str:
        given |= {
            "about": about,
            "provenance": provenance,
            "TIERS": TIERS,
        }
        return lean(render(f"{template}.html.j2", site=self, root=root, **given))

    @cached_property
    def cells(self) -> list[Page]:
        """All cells, board by board; at the end those without one."""
        found = [
            Page(key, entry, board) for board in self.boards for key, entry in board.entries.items() if entry.sample
        ]
        for outcome in self.homeless:
            entry = entry_of(Sample((outcome,)))
            found.append(Page((outcome.cell.defense, outcome.cell.attack, outcome.cell.tier), entry, None))
        return list({(page.address, page.key): page for page in reversed(found)}.values())[::-1]

    @cached_property
    def _by_address(self) -> dict[str, list[Page]]:
        found: dict[str, list[Page]] = {}
        for page in self.cells:
            found.setdefault(page.address, []).append(page)
        return found

    @cached_property
    def charts(self) -> list[Chart]:
        """What is drawn."""
        return charts([page.sample for page in self.cells], self.latencies, load_rocs(self.store))

    @property
    def groups(self) -> list[tuple[str, str, list[Board]]]:
        """(data set, model, their boards)."""
        named = groupby(self.boards, key=lambda one: (one.setting.dataset, one.setting.model))
        return [(dataset, model, list(group)) for (dataset, model), group in named]

    def provenance(self, boards: Sequence[Board]) -> dict[str, tuple[str, ...]]:
        """Where the records of these boards come from: key -> the values that there are."""
        samples = [entry.sample for board in boards for entry in board.entries.values() if entry.sample]
        return provenance([outcome for sample in samples for outcome in sample.outcomes])

    def plugins(self, kind: Kind) -> list[PluginLink]:
        """All attacks or defenses that have a cell on a board, by name."""
        if kind == "attack":
            every = [one for board in self.boards for tier in TIERS for one in board.attacks[tier]]
        else:
            every = [row.defense for board in self.boards for row in board.rows]
        return [found for _, found in sorted({one.key: one for one in every}.items())]

    def pages_of(self, kind: Kind, key: str) -> list[Page]:
        """The cells of an attack or a defense."""
        return self._by_plugin.get((kind, key), [])

    @cached_property
    def _by_plugin(self) -> dict[tuple[str, str], list[Page]]:
        found: dict[tuple[str, str], list[Page]] = {}
        for page in self.cells:
            if page.board:
                found.setdefault(("defense", page.key[0]), []).append(page)
                found.setdefault(("attack", page.key[1]), []).append(page)
        return found

    def parts_of(self, kind: Kind, key: str) -> Iterator[tuple[str, str, list[Place], list[Pair]]]:
        """(data set, model, where a defense stands there, the cells there) of an attack or a defense."""
        for dataset, model, boards in self.groups:
            every = [(board, row) for board in boards for row in board.rows] if kind == "defense" else []
            rows = [(board, row) for board, row in every if row.defense.key == key]
            pages = [one for one in self.pages_of(kind, key) if one.board in boards]
            if rows or pages:
                yield dataset, model, rows, pairs(pages)

    def around(self, page: Page) -> dict[str, Entry]:
        """The entries that belong beside a cell: both tiers, and the model without a defense."""
        defense, attack, tier = page.key
        if page.board is None:
            return {tier: page.entry}
        entries, bare = page.board.entries, next((row.defense.key for row in page.board.rows if row.baseline), None)
        found = {one: entries[defense, attack, one] for one in TIERS if (defense, attack, one) in entries}
        beside = entries.get((bare, attack, tier)) if bare not in (None, defense) else None
        return found | ({"no defense": beside} if beside else {})

    @cached_property
    def _stale(self) -> dict[Cell, str]:
        return stale_cells(one for page in self.cells for one in page.sample.outcomes)

    def stale(self, entry: Entry | None) -> str:
        """Why some record of an entry is stale, "" where none is."""
        outcomes = entry.sample.outcomes if entry and entry.sample else ()
        return "; ".join(dict.fromkeys(self._stale[one.cell] for one in outcomes if one.cell in self._stale))

    @property
    def troubles(self) -> list[tuple[Page, str]]:
        """The cells without a number or with a stale one, with what is wrong."""
        told = [(page, self.trouble(page)) for page in self.cells]
        return [(page, words) for page, words in told if words]

    def trouble(self, page: Page) -> str:
        """Why a cell has no number, and why it is stale; "" for a good one."""
        seeds = "seed " if page.sample.facts else ""
        failures = [
            f"{f'{seeds}{one.cell.seed}: ' if seeds else ''}{one.status}: {plain(one.reason)}"
            for one in page.sample.failures
        ]
        stale = self.stale(page.entry)
        return "; ".join(dict.fromkeys([*failures, *([f"stale: {stale}"] if stale else [])]))

    def sheet(self, page: Page) -> tuple[str, Sheet] | None:
        """The pictures of a cell: (address from the site's root, what is on them)."""
        found = load_sheet(self.store, page.sample.outcomes)
        return (self._beside(found[0]), found[1]) if found else None

    def patch(self, page: Page) -> str | None:
        """The picture of what a universal attack learned."""
        path = self.store.picture(page.cell)
        return self._beside(path) if path.is_file() else None

    def submission(self, defense: str) -> dict[str, str]:
        """Of a submitted defense: file name -> address of its code, its manifest and its verdict."""
        name = defense.partition(":")[0]
        folder = self.store.folder / "submissions" / name
        if not re.fullmatch(r"[a-z0-9-]+", name) or not folder.is_dir():
            return {}
        files = [*sorted((folder / "code").rglob("*.py")), *sorted(folder.glob("*.json"))]
        return {path.name: self._beside(path) for path in files}

    def code_of(self, kind: Kind, key: str) -> str:
        """The address of a plugin's code, "" where there is none; plugins of the same code share it."""
        if about(kind, key).code:
            return f"{plugin_page(kind, self.owner(kind, key))}#code"
        return f"{plugin_page(kind, key)}#code" if kind == "defense" and self.submission(key) else ""

    def owner(self, kind: Kind, key: str) -> str:
        """The plugin whose page has the code: of those with the same code that with the shortest text."""
        return self._owners[kind, *about(kind, key).code]

    @cached_property
    def _owners(self) -> dict[tuple[str, ...], str]:
        kinds: tuple[Kind, ...] = ("attack", "defense")
        every = [(kind, one.key) for kind in kinds for one in self.plugins(kind)]
        order = sorted(every, key=lambda one: (-len(one[1]), one))
        return {(kind, *about(kind, key).code): key for kind, key in order}

    def commands(self, pages: Sequence[Page]) -> list[str]:
        """What computes these cells."""
        return commands(outcome.cell for page in pages for outcome in page.sample.outcomes)

    def record(self, cell: Cell) -> str:
        """The address of a record."""
        return self._beside(self.store.path(cell))

    def _beside(self, path: Path) -> str:
        """The address of a file of the results folder."""
        return f"../{path.relative_to(self.store.folder).as_posix()}"

    def times_of(self, defense: str) -> list[Latency]:
        """How long a defense takes."""
        return [one for one in self.latencies if one.defense == defense]
