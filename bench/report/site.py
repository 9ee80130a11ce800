"""Boards as HTML: one self-contained page with all of them, and a site with pages for defenses, attacks and cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

from markupsafe import Markup

from bench.core.text import plain
from bench.plugins.registry import Kind
from bench.records.roc import load_rocs
from bench.records.samples import Sample
from bench.records.schema import TIERS, Cell, Latency, Outcome
from bench.records.sheets import Sheet, load_sheet
from bench.records.store import Store
from bench.report.answers import BoardAnswer, make_answers
from bench.report.board import Board, Entry, EntryKey, PluginLink
from bench.report.boards import entry_of, provenance_summary
from bench.report.cell_page import CellPage, TierPair, tier_pairs
from bench.report.charts.chart import Chart, charts
from bench.report.charts.scatter import scatter
from bench.report.html import asset, render, shrink, stylesheet, with_assets
from bench.report.published import board_json, record_schema
from bench.report.staleness import stale_cells
from bench.report.summary import Standing, group
from bench.report.urls import board_anchor, plugin_url

KINDS: tuple[Kind, ...] = ("attack", "defense")


@dataclass(frozen=True)
class Site:
    """Everything the pages show, from the records of a results folder.

    Attributes:
        boards: in order.
        unknown: failed records whose attack is unknown.
        latencies: how long defenses take.
        store: where records and pictures are.
    """

    boards: Sequence[Board]
    unknown: Sequence[Outcome]
    latencies: Sequence[Latency]
    store: Store

    @property
    def front_page(self) -> str:
        """The answers and the boards of benchmarks as one page that needs no other file."""
        return with_assets(shrink(self._page("index", "", alone=True)))

    @property
    def experiments_page(self) -> str:
        """All other boards as such a page."""
        return with_assets(shrink(self._page("experiments", "", alone=True)))

    @property
    def benchmarks(self) -> list[Board]:
        """The boards of benchmarks."""
        return [board for board in self.boards if board.benchmark]

    @property
    def experiments(self) -> list[Board]:
        """The boards of no benchmark."""
        return [board for board in self.boards if not board.benchmark]

    @cached_property
    def answers(self) -> list[BoardAnswer]:
        """What comes first."""
        return make_answers(self.boards)

    def picture(self, answer: BoardAnswer) -> Markup:
        """An answer as a picture; its template has escaped every name."""
        return Markup(scatter(answer))  # noqa: S704  # see above

    def files(self) -> Iterator[tuple[str, str]]:
        """(address, content) of all files of the site."""
        yield "page.css", stylesheet()
        yield "page.js", asset("page.js")
        yield "board.json", board_json(self.boards)
        yield "record.schema.json", record_schema()
        yield "index.html", self._page("index", "")
        yield "experiments.html", self._page("experiments", "")
        for answer in self.answers:
            yield f"figures/{board_anchor(answer.board.conditions)}.svg", scatter(answer, alone=True)
        for kind in KINDS:
            yield f"{kind}s.html", self._page("plugins", "", kind=kind)
            for plugin in self.plugins(kind):
                yield plugin_url(kind, plugin.key), self._page("plugin", "../", kind=kind, plugin=plugin)
        for url, pages in group((page.url, page) for page in self.cells).items():
            yield url, self._page("cell", "../", pages=pages)
        if self.charts:
            yield "curves.html", self._page("curves", "")
        for chart in self.charts:
            yield from ((f"curves/{name}", content) for name, content in chart.files)

    def _page(self, template: str, root: str, alone: bool = False, **values: object) -> str:
        return render(f"{template}.html.j2", site=self, root=root, alone=alone, **values)

    @cached_property
    def cells(self) -> list[CellPage]:
        """All cells, board by board; last those whose attack is unknown."""
        pages = [
            CellPage(entry.sample, entry, board)
            for board in self.boards
            for entry in board.entries.values()
            if entry.sample
        ]
        unknown = [Sample((outcome,)) for outcome in self.unknown]
        pages += [CellPage(sample, entry_of(sample), None) for sample in unknown]
        first = {(page.url, page.cell.tier): page for page in reversed(pages)}
        return list(first.values())[::-1]

    @cached_property
    def charts(self) -> list[Chart]:
        """All charts."""
        return charts([page.sample for page in self.cells], self.latencies, load_rocs(self.store))

    def groups(self, boards: Sequence[Board]) -> list[tuple[str, str, list[Board]]]:
        """(data set, model, their boards)."""
        groups = groupby(boards, key=lambda one: (one.conditions.dataset, one.conditions.model))
        return [(dataset, model, list(boards)) for (dataset, model), boards in groups]

    def provenance(self, boards: Sequence[Board]) -> dict[str, tuple[str, ...]]:
        """The origin of the records of these boards."""
        samples = [entry.sample for board in boards for entry in board.entries.values() if entry.sample]
        return provenance_summary([outcome for sample in samples for outcome in sample.outcomes])

    def plugins(self, kind: Kind) -> list[PluginLink]:
        """All attacks or defenses with a cell on a board, by name."""
        if kind == "attack":
            links = [link for board in self.boards for tier in TIERS for link in board.attacks[tier]]
        else:
            links = [row.defense for board in self.boards for row in board.rows]
        return [link for _, link in sorted({link.key: link for link in links}.items())]

    def pages_of(self, kind: Kind, key: str) -> list[CellPage]:
        """The cells of an attack or a defense."""
        return self._by_plugin.get((kind, key), [])

    @cached_property
    def _by_plugin(self) -> dict[tuple[str, str], list[CellPage]]:
        pages = [page for page in self.cells if page.board]
        return group(((kind, getattr(page.cell, kind)), page) for page in pages for kind in KINDS)

    def parts_of(self, kind: Kind, key: str) -> Iterator[tuple[str, str, list[Standing], list[TierPair]]]:
        """(data set, model, the defense's rows there, the plugin's cells there)."""
        for dataset, model, boards in self.groups(self.boards):
            rows = [(one, row) for one in boards for row in one.rows if (kind, row.defense.key) == ("defense", key)]
            pages = [page for page in self.pages_of(kind, key) if page.board in boards]
            if rows or pages:
                yield dataset, model, rows, tier_pairs(pages)

    def around(self, page: CellPage) -> dict[str, Entry]:
        """The entries beside a cell: both tiers, and the model without a defense."""
        defense, attack, tier = page.cell.defense, page.cell.attack, page.cell.tier
        if page.board is None:
            return {tier: page.entry}
        entries, bare = page.board.entries, next((row.defense.key for row in page.board.rows if row.baseline), None)
        wanted: dict[str, EntryKey] = {name: (defense, attack, name) for name in TIERS}
        if bare and bare != defense:
            wanted["no defense"] = (bare, attack, tier)
        return {name: entries[key] for name, key in wanted.items() if key in entries}

    @cached_property
    def _stale(self) -> dict[Cell, str]:
        return stale_cells(outcome for page in self.cells for outcome in page.sample.outcomes)

    def stale(self, entry: Entry | None) -> str:
        """Why some record of an entry is stale, "" if none is."""
        outcomes = entry.sample.outcomes if entry and entry.sample else ()
        return "; ".join(dict.fromkeys(self._stale[one.cell] for one in outcomes if one.cell in self._stale))

    @cached_property
    def failed(self) -> list[CellPage]:
        """The cells of which some seed has no number."""
        return [page for page in self.cells if page.sample.failures]

    @cached_property
    def stale_counts(self) -> dict[str, int]:
        """Why cells are stale, and how many."""
        return Counter(reason for page in self.cells if (reason := self.stale(page.entry)))

    def trouble(self, page: CellPage) -> str:
        """Why a cell has no number or a stale one, "" for a good cell."""
        reasons = []
        for outcome in page.sample.failures:
            seed = f"seed {outcome.cell.seed}: " if page.sample.facts else ""
            reasons.append(f"{seed}{outcome.status}: {plain(outcome.reason)}")
        if stale := self.stale(page.entry):
            reasons.append(f"stale: {stale}")
        return "; ".join(dict.fromkeys(reasons))

    def sheet(self, page: CellPage) -> tuple[str, Sheet] | None:
        """The pictures of a cell: (address, description)."""
        sheet = load_sheet(self.store, page.sample.outcomes)
        return (self._beside(sheet[0]), sheet[1]) if sheet else None

    def patch(self, page: CellPage) -> str | None:
        """The picture of what a universal attack learned."""
        path = self.store.picture(page.cell)
        return self._beside(path) if path.is_file() else None

    def submission(self, defense: str) -> dict[str, str]:
        """The files of a submitted defense, by name: code, manifest and verdict."""
        name = re.match(r"[a-z0-9-]*", defense)[0]  # type: ignore[index]  # it always matches
        folder = self.store.folder / "submissions" / name
        if not name or not folder.is_dir():
            return {}
        files = [*sorted((folder / "code").rglob("*.py")), *sorted(folder.glob("*.json"))]
        return {path.name: self._beside(path) for path in files}

    def record(self, cell: Cell) -> str:
        """The address of a record."""
        return self._beside(self.store.path(cell))

    def _beside(self, path: Path) -> str:
        return f"../{path.relative_to(self.store.folder).as_posix()}"
