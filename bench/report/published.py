"""The boards and the schema of records as JSON, for programs that read a site: board.json and record.schema.json."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter

from bench.records.format import Formatted
from bench.records.schema import SCHEMA, Latency, Outcome
from bench.report.board import Board, Row

BOARD_FORM = 1
"""Raised when a key of board.json is dropped or means something else."""


def board_json(boards: Sequence[Board]) -> str:
    """All boards: conditions, the attacks of each tier, a row for each defense, and its numbers in percent.

    A cell without an attack is the worst case over all attacks of its tier.
    """
    text = json.dumps({"form": BOARD_FORM, "boards": list(map(_board, boards))}, indent=1, ensure_ascii=False)
    return text.replace("<", "\\u003c") + "\n"  # harmless where a page takes it in


def _board(board: Board) -> dict[str, Any]:
    return {
        **asdict(board.conditions),
        "evaluated": board.images,
        "classes": board.classes,
        "seeds": list(board.seeds),
        "ranked_by": board.basis,
        "attacks": {tier: [attack.key for attack in attacks] for tier, attacks in board.attacks.items()},
        "rows": list(map(_row, board.rows)),
        "cells": [
            {"defense": defense, "attack": attack, "tier": tier}
            | {name: _number(number) for name, number in entry.numbers.items()}
            for (defense, attack, tier), entry in board.entries.items()
        ],
        "footnotes": list(board.footnotes),
        "remarks": list(board.remarks),
    }


def _row(row: Row) -> dict[str, Any]:
    defense = row.defense
    return {
        "defense": defense.key,
        "title": defense.title,
        "kind": defense.kind,
        "paper": defense.paper,
        "rank": row.rank,
        "why_unranked": row.why_unranked,
        "clean": _number(row.clean),
        "flags": [{key: getattr(flag, key) for key in ("id", "colour", "title", "text")} for flag in row.raised],
    }


def _number(number: Formatted) -> dict[str, Any]:
    """In percent or percentage points, with its 95 % interval; None where there is none, and `text` says why."""
    return {"value": number.value, "low": number.low, "high": number.high, "text": number.text}


def record_schema() -> str:
    """The JSON Schema of the files below records/."""
    tree = TypeAdapter(Outcome | Latency).json_schema(ref_template="#/$defs/{model}")
    for name in ("Outcome", "Latency"):
        form = tree["$defs"][name]
        form["properties"] |= {
            "schema": {"enum": [1, SCHEMA]},
            "checksum": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
        }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A record of defense-bench"}
    return json.dumps(head | tree, indent=1, ensure_ascii=False) + "\n"
