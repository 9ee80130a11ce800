"""Boards and a site from records alone. Nothing here computes, and nothing imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.core.files import write_text
from bench.records.store import Store
from bench.report.boards import red_flags
from bench.report.describe import describe
from bench.report.figures import ENDINGS, write_figures
from bench.report.terminal import print_boards

if TYPE_CHECKING:
    from bench.report.site import Site

__all__ = ["describe", "generate", "print_boards", "red_flags", "stale_files", "write_figures", "write_report"]


def generate(folder: Path) -> dict[Path, str]:
    """All generated files of a results folder; the same records give the same bytes.

    The site also shows the pictures in the folder and, from the code installed here, descriptions of the plugins and
    whether a record was computed with that code.

    Raises:
        InputError: a file is not a record.
    """
    site = _site(folder)
    return _committed(site) | {folder / "site" / address: text for address, text in site.files()}


def write_report(folder: Path) -> list[Path]:
    """Writes the generated files that have changed, deletes obsolete pages of the site, and returns these paths."""
    with Store(folder).locked():  # when several runs end at once, the last to write has seen all records
        files = generate(folder)
        changed = [path for path, text in files.items() if not _is_current(path, text)]
        for path in changed:
            write_text(path, files[path], lasting=False)
        made = [*sorted((folder / "site").rglob("*")), *sorted((folder / "boards").glob("*.md"))]
        figures = {path.with_suffix(ending) for path in files if path.suffix == ".svg" for ending in ENDINGS}
        kept = files.keys() | figures - {path.with_suffix(ending) for path in changed for ending in ENDINGS}
        obsolete = [path for path in made if path.is_file() and path not in kept]
        for path in obsolete:
            path.unlink()
    return changed + obsolete


def stale_files(folder: Path) -> list[Path]:
    """The generated files outside the site that are missing, obsolete, or not what the records give."""
    files = _committed(_site(folder))
    obsolete = [path for path in sorted((folder / "boards").glob("*.md")) if path not in files]
    return [path for path, text in files.items() if not _is_current(path, text)] + obsolete


def _site(folder: Path) -> Site:
    from bench.report.boards import make_boards
    from bench.report.site import Site

    store = Store(folder)
    latencies = list(store.latencies())
    return Site(*make_boards(store.outcomes(), latencies), latencies, store)


def _committed(site: Site) -> dict[Path, str]:
    """The files that belong into the repository."""
    from bench.report.markdown import markdown_files

    texts = markdown_files(site.boards, site.unknown)
    texts |= {"index.html": site.front_page, "experiments.html": site.experiments_page}
    return {site.store.folder / name: text for name, text in texts.items()}


def _is_current(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
