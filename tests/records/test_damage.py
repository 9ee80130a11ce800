"""A damaged record is an error that names its file, or changes nothing: no table is wrong without a word."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.core.files import write_text
from bench.errors import InputError
from bench.records.schema import Latency
from bench.records.store import Store, parse_outcome

from ..builders import facts, outcome, saved

N = 12
NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The file of one record among several."""
    noted = {"pixels": [1.0, None] * (N // 2), "through bare": [1.0] * N}
    first = outcome("patch", "lgs", "adaptive", facts(0.5, n=N, noted=noted), images=N, seconds={"total": 1.5})
    others = [outcome("patch", "none", tier, facts(0.2, n=N), images=N) for tier in ("oblivious", "adaptive")]
    saved(tmp_path, first, *others, Latency("photos", "photos-cnn", "lgs", {1: {"ratio": 1.5}}, "some CPU"))
    return Store(tmp_path).path(first.cell)


def content(record: Path) -> list[dict[str, Any]]:
    store = Store(record.parents[3])
    return [*map(asdict, store.outcomes()), *map(asdict, store.latencies())]


def at(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(tree: dict[str, Any]) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = to(tree[path[-1]]) if callable(to) else to

    return change


IMPOSSIBLE = {
    "a share above 1": at("facts", "defended_attacked", to=[3.0] * N),
    "a share below 0": at("facts", "bare_clean", to=[-1] * N),
    "NaN": at("facts", "reached", to=[NAN] * N),
    "text for numbers": at("facts", "reached", to=["x"] * N),
    "too few marks": at("facts", "defended_attacked", to="111"),
    "too many values": at("facts", "defended_clean", to=[0.5] * (N + 1)),
    "other marks": at("facts", "defended_clean", to="2" * N),
    "no values": at("facts", "defended_attacked_8bit", to=None),
    "a fact missing": lambda tree: tree["facts"].pop("bare_attacked"),
    "too few indices": at("facts", "index", to=lambda index: index[:-1]),
    "an index twice": at("facts", "index", to=lambda index: [index[0], *index[:-1]]),
    "an index below 0": at("facts", "index", to=lambda index: [-1, *index[1:]]),
    "half an index": at("facts", "index", to=lambda index: [0.5, *index[1:]]),
    "a label of no class": at("facts", "label", to=[99] * N),
    "a label below 0": at("facts", "label", to=[-1] * N),
    "half eligible": at("facts", "eligible", to=[0.5] * N),
    "certified twice": at("facts", "certified", to=[2] * N),
    "too few notes": at("facts", "noted", "pixels", to=[1]),
    "an infinite note": at("facts", "noted", "pixels", to=[INFINITY] * N),
    "no images": at("facts", to=lambda facts: {name: [] for name in facts if isinstance(facts[name], list | str)}),
    "ok without facts": at("facts", to=None),
    "facts without ok": at("status", to="error"),
    "an unknown status": at("status", to="fine"),
    "no classes": at("classes", to=0),
    "no attack": at("attack", to=None),
    "no defense": at("defense", to=None),
    "a budget that is a number": at("attack", "traits", "budget", to=5),
    "a kind that is a list": at("defense", "traits", "kind", to=["x"]),
    "passes in words": at("defense", "traits", "passes", to="many"),
    "an unknown tier": at("cell", "tier", to="both"),
    "an unknown goal": at("cell", "goal", to="anything"),
    "another seed": at("cell", "seed", to=1),
    "a seed below 0": at("cell", "seed", to=-1),
    "another number of images": at("cell", "images", to=7),
    "queries below 0": at("queries", "forwards_mean", to=-1),
    "seconds without end": at("seconds", "total", to=NAN),
    "warnings that are a text": at("warnings", to="x"),
    "a fingerprint that is a number": at("fingerprints", "data", to=3),
    "a date in words": at("date", to="yesterday"),
    "an unknown field": at("extra", to=1),
    "an unknown schema": at("schema", to=99),
    "a title that cannot be written": at("attack", "title", to="\ud800"),
}


@pytest.mark.parametrize("sealed", [True, False], ids=["with a checksum", "from before checksums"])
@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_an_impossible_record_is_refused_by_name(what: str, sealed: bool, record: Path) -> None:
    tree = json.loads(record.read_text())
    if not sealed:
        del tree["checksum"]
        tree["schema"] = 1
    IMPOSSIBLE[what](tree)
    write_text(record, json.dumps(tree))
    with pytest.raises(InputError, match=record.name):
        content(record)


@pytest.mark.parametrize(
    "change",
    [
        at("facts", "defended_attacked", to="1" * N),
        at("attack", "title", to="Another attack"),
        at("fingerprints", "data", to="d2"),
        at("checksum", to="0" * 16),
        lambda tree: tree.pop("checksum"),
    ],
)
def test_a_possible_change_by_hand_does_not_match_the_checksum(
    change: Callable[[dict[str, Any]], None], record: Path
) -> None:
    tree = json.loads(record.read_text())
    change(tree)
    write_text(record, json.dumps(tree))
    with pytest.raises(InputError, match=rf"{record.name} was changed"):
        content(record)


def test_spaces_and_line_ends_may_change(record: Path) -> None:
    before = content(record)
    record.write_bytes(record.read_bytes().replace(b"\n", b"\r\n").replace(b": ", b":   "))
    assert content(record) == before


def damaged(whole: bytes) -> Iterator[bytes]:
    """The content with one bit turned, and cut off."""
    chooser = random.Random(0)
    for _ in range(150):
        place, bit = chooser.randrange(len(whole)), 1 << chooser.randrange(8)
        yield whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
    for _ in range(60):
        yield whole[: chooser.randrange(len(whole))]


def test_a_turned_bit_or_a_cut_is_refused_by_name(record: Path) -> None:
    whole, reasons = record.read_bytes(), list[str]()
    expected = parse_outcome(whole, record.name)
    for changed in damaged(whole):
        try:
            assert parse_outcome(changed, record.name) == expected
        except InputError as error:
            reasons.append(str(error))
    assert len(reasons) > 200
    assert all(record.name in reason for reason in reasons)


@pytest.mark.parametrize("text", ["[1]", '{"schema": 1, "schema": 2}', "[" * 10_000, '{"x": 1e999}', "\ufeff{}"])
def test_json_that_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"some\.json"):
        parse_outcome(text.encode(), "some.json")


@pytest.mark.parametrize("place", ["copy.json", "deeper/{name}", "../{name}", "../other-model/{name}"])
def test_a_record_in_another_place_is_refused_by_name(place: str, record: Path) -> None:
    path = record.parent / place.format(name=record.name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(record.read_bytes())
    with pytest.raises(InputError, match="holds the record of another file") as raised:
        content(record)
    assert path.name in str(raised.value)


def test_the_record_of_another_cell_is_refused(record: Path) -> None:
    other = next(path for path in record.parent.glob("patch*.json") if path != record)
    other.write_bytes(record.read_bytes())
    with pytest.raises(InputError, match=other.name):
        Store(record.parents[3]).find("defense=none tier=oblivious")
