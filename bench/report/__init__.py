"""Tables from records alone: terminal, Markdown and a page. Nothing here computes, and nothing imports torch."""

from __future__ import annotations

from pathlib import Path

from bench.report.describe import describe
from bench.report.terminal import print_boards
from bench.store import Store, write

__all__ = ["describe", "generate", "print_boards", "stale", "write_report"]


def generate(folder: Path) -> dict[Path, str]:
    """All generated files of a results folder as text; a function of its records alone, byte for byte.

    Raises InputError where a file is no record.
    """
    from bench.report import html, markdown
    from bench.report.build import make_boards

    store = Store(folder)
    boards, homeless = make_boards(store.outcomes(), store.latencies())
    return {
        folder / "README.md": markdown.page(boards, homeless),
        folder / "index.html": html.page(boards, homeless),
    }


def write_report(folder: Path) -> list[Path]:
    """Writes the generated files, each whole or not at all, and returns their paths."""
    files = generate(folder)
    for path, text in files.items():
        write(path, text)
    return list(files)


def stale(folder: Path) -> list[Path]:
    """The generated files that are missing or not what the records give."""
    files = generate(folder)
    return [path for path, text in files.items() if not path.is_file() or path.read_bytes() != text.encode()]
