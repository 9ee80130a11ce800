"""The addresses of the site's pages, from its root; they stay the same as long as what they are about does."""

from __future__ import annotations

import hashlib
import re
from dataclasses import astuple

from bench.plugins.registry import Kind
from bench.records.schema import Cell
from bench.report.grouping import Conditions


def plugin_page(kind: Kind, text: str) -> str:
    """The page of an attack or a defense."""
    return f"{kind}s/{_readable(text)}.html"


def cell_page(cell: Cell) -> str:
    """The page of a cell; its seeds share one, and so do its tiers."""
    words = (cell.dataset, cell.model, cell.attack, cell.defense, cell.goal, cell.effort, str(cell.images))
    return f"cells/{_hash(*words)[:10]}.html"


def anchor(setting: Conditions) -> str:
    """The place of a board on the front page."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{setting.dataset}-{setting.budget}").strip("-").lower()[:40]
    return f"{words}-{_hash(*map(str, astuple(setting)))[:6]}"


def place(dataset: str, model: str) -> str:
    """The place of a data set and a model on the page of an attack or a defense."""
    return f"on-{_hash(dataset, model)[:6]}"


def file_name(words: str, *identity: str) -> str:
    """A file name on any system: some words, and a hash of all that tells it from others."""
    safe = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60]
    return f"{safe}-{_hash(words, *identity)[:6]}"


def _readable(text: str) -> str:
    """The text itself where it can be a file name, else with a hash."""
    return text if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) and len(text) <= 60 else file_name(text)


def _hash(*words: str) -> str:
    return hashlib.sha256(chr(0).join(words).encode()).hexdigest()
