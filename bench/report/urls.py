"""The addresses of the site's pages, from its root; they are stable."""

from __future__ import annotations

import hashlib
import re
from dataclasses import astuple

from bench.plugins.registry import Kind
from bench.records.samples import Conditions
from bench.records.schema import Cell


def plugin_url(kind: Kind, text: str) -> str:
    """The page of an attack or a defense; its text is the file name if it can be."""
    readable = re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) and len(text) <= 60
    return f"{kind}s/{text if readable else file_name(text)}.html"


def cell_url(cell: Cell) -> str:
    """The page of a cell, which its seeds and tiers share."""
    words = (cell.dataset, cell.model, cell.attack, cell.defense, cell.goal, cell.effort, str(cell.images))
    return f"cells/{_hash(*words)[:10]}.html"


def board_anchor(conditions: Conditions) -> str:
    """The anchor of a board on the front page."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", f"{conditions.dataset}-{conditions.budget}").strip("-").lower()[:40]
    return f"{words}-{_hash(*map(str, astuple(conditions)))[:6]}"


def model_anchor(dataset: str, model: str) -> str:
    """The anchor of a data set and a model on the page of an attack or a defense."""
    return f"on-{_hash(dataset, model)[:6]}"


def file_name(words: str, *identity: str) -> str:
    """A file name that any system allows: some words, and a hash that tells it from others."""
    safe = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60]
    return f"{safe}-{_hash(words, *identity)[:6]}"


def _hash(*words: str) -> str:
    return hashlib.sha256(chr(0).join(words).encode()).hexdigest()
