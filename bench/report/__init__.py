"""Tables and a site from records alone. Nothing here computes, and nothing imports torch."""

from __future__ import annotations

from pathlib import Path

from bench.core.files import write_text
from bench.records.store import Store
from bench.report.describe import describe
from bench.report.terminal import print_boards

__all__ = ["describe", "generate", "print_boards", "stale", "write_report"]


def generate(folder: Path) -> dict[Path, str]:
    """All generated files of a results folder as text; the same records give the same bytes.

    Beside the records, the site shows the pictures in the folder, and what the code of this installation says of
    the plugins: their descriptions, and whether a record was computed with it.

    Raises InputError where a file is no record.
    """
    from bench.report import markdown
    from bench.report.boards import make_boards
    from bench.report.site import Site

    store = Store(folder)
    latencies = list(store.latencies())
    boards, homeless = make_boards(store.outcomes(), latencies)
    site = Site(boards, homeless, latencies, store)
    files = {folder / "README.md": markdown.page(boards, homeless)}
    return files | {folder / "site" / address: text for address, text in site.files()}


def write_report(folder: Path) -> list[Path]:
    """Writes the generated files that are not current, deletes pages that are no more, and returns all of these."""
    files = generate(folder)
    changed = [path for path, text in files.items() if not _is(path, text)]
    for path in changed:
        write_text(path, files[path], lasting=False)
    gone = _gone(folder, files)
    for path in gone:
        path.unlink()
    return changed + gone


def stale(folder: Path) -> list[Path]:
    """The generated files that are missing, or not what the records give, or are no more."""
    files = generate(folder)
    return [path for path, text in files.items() if not _is(path, text)] + _gone(folder, files)


def _is(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _gone(folder: Path, files: dict[Path, str]) -> list[Path]:
    """Pages of the site that the records no longer give."""
    return [path for path in sorted((folder / "site").rglob("*")) if path.is_file() and path not in files]
