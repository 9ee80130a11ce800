"""Boards as a site: a front page with all of them, and a page for each defense, attack and cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from bench.outcome import TIERS, Cell, Latency, Outcome
from bench.registry import Kind
from bench.report.about import about
from bench.report.board import Board, Entry, Plugin, Row
from bench.report.build import entry_of, provenance
from bench.report.charts import Chart, charts
from bench.report.checks import CHECKS, NOT_RUN
from bench.report.fresh import stale_cells
from bench.report.html import asset, render
from bench.report.links import plugin_page
from bench.report.page import MEASURES, Page
from bench.report.pictures import Sheet, load
from bench.report.roc import load as load_rocs
from bench.report.samples import Sample
from bench.report.shown import plain
from bench.store import Store


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
        yield "index.html", self._page("index", "", boards=self.boards, checks=_told_checks(), not_run=NOT_RUN)
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
            "plugin_of": Plugin.of,
            "TIERS": TIERS,
        }
        return render(f"{template}.html.j2", site=self, root=root, **given)

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

    def plugins(self, kind: Kind) -> list[Plugin]:
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

    def rows_of(self, defense: str) -> list[tuple[Board, Row]]:
        """Where a defense stands on the boards."""
        return [(board, row) for board in self.boards for row in board.rows if row.defense.key == defense]

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

    def measures(self, pages: Sequence[Page]) -> dict[str, tuple[str, str]]:
        """Those of `MEASURES` that some of the cells have."""
        return {name: told for name, told in MEASURES.items() if any(name in page.entry.numbers for page in pages)}

    def stale(self, entry: Entry | None) -> str:
        """Why some record of an entry is stale, "" where none is."""
        outcomes = entry.sample.outcomes if entry and entry.sample else ()
        return "; ".join(dict.fromkeys(self._stale[one.cell] for one in outcomes if one.cell in self._stale))

    @property
    def troubles(self) -> list[tuple[Page, str]]:
        """The cells that failed or are stale, with what is wrong."""
        told = [(page, self.trouble(page)) for page in self.cells]
        return [(page, words) for page, words in told if words]

    def trouble(self, page: Page) -> str:
        """How a cell failed, and why it is stale; "" for a good one."""
        seeds = "seed " if page.sample.facts else ""
        failures = [
            f"{f'{seeds}{one.cell.seed}: ' if seeds else ''}{one.status}: {plain(one.reason)}"
            for one in page.sample.failures
        ]
        stale = self.stale(page.entry)
        return "; ".join(dict.fromkeys([*failures, *([f"stale: {stale}"] if stale else [])]))

    def sheet(self, page: Page) -> tuple[str, Sheet] | None:
        """The pictures of a cell: (address from the site's root, what is on them)."""
        found = load(self.store, page.sample.outcomes)
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

    def record(self, cell: Cell) -> str:
        """The address of a record."""
        return self._beside(self.store.path(cell))

    def _beside(self, path: Path) -> str:
        """The address of a file of the results folder."""
        return f"../{path.relative_to(self.store.folder).as_posix()}"

    def times_of(self, defense: str) -> list[Latency]:
        """How long a defense takes."""
        return [one for one in self.latencies if one.defense == defense]

    def choices(self) -> dict[str, tuple[str, list[str]]]:
        """Filter -> its heading and values; one with a single value is left out, for there is nothing to choose."""
        settings = [board.setting for board in self.boards]
        kinds = {row.defense.kind for board in self.boards for row in board.rows if not row.baseline}
        attacks = {one.text for one in self.plugins("attack")}
        tiers = [tier for tier in (*TIERS, "certified") if any(c.tint == tier for b in self.boards for c in b.columns)]
        found: dict[str, tuple[str, list[str]]] = {
            "dataset": ("data set", sorted({one.dataset for one in settings})),
            "model": ("model", sorted({one.model for one in settings})),
            "threat": ("threat model", sorted({one.threat_model for one in settings})),
            "goal": ("goal", sorted({one.goal for one in settings})),
            "effort": ("effort", sorted({one.effort for one in settings})),
            "kind": ("kind", sorted(kinds - {""})),
            "tier": ("attacker", tiers),
            "attack": ("attack", sorted(attacks)),
        }
        return {key: (label, values) for key, (label, values) in found.items() if len(values) > 1}

    def column_names(self) -> list[str]:
        """What columns there are to choose from, on any board, in the order of their first place."""
        labels = [column.label for board in self.boards for column in board.columns]
        return list(dict.fromkeys(["clean", *sorted(labels, key=lambda one: one not in ("worst case", "δ", "β"))]))


def _told_checks() -> list[tuple[str, str]]:
    """(id, what it looks for) of every check that reads records, from the first lines of their docstrings."""
    lines = [(check.__doc__ or "").split("\n")[0] for check in CHECKS]
    return sorted((line.partition(": ")[0], line.partition(": ")[2]) for line in lines)
