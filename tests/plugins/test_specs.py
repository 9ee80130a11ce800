"""Names with parameters as text: one grammar, and one spelling for each value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pytest

from bench.errors import InputError
from bench.plugins.registry import Kind, canonical_text
from bench.plugins.specs import Spec, canonical, parse_value, split_specs, write_value

RECORDS = Path(__file__).parents[2] / "results" / "records"


@pytest.mark.parametrize(
    ("text", "in_order"),
    [
        ("lgs", "lgs"),
        ("patch:steps=3,area=0.1", "patch:area=0.1,steps=3"),
        ("patch:uva,area=0.1", "patch:uva,area=0.1"),
        ("folder:../a b/c+d,resize=256", "folder:../a b/c+d,resize=256"),
        ("lgs:window=3+median", "lgs:window=3+median"),
    ],
)
def test_a_spec_prints_its_parameters_in_order(text: str, in_order: str) -> None:
    assert str(Spec.parse(text)) == in_order
    assert str(Spec.parse(in_order)) == in_order


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("lgs", ["lgs"]),
        ("lgs:window=3,overlap=1+median", ["lgs:overlap=1,window=3", "median"]),
        ("a+b-c:x=1+d", ["a", "b-c:x=1", "d"]),
        ("a:x=1e+5,file=/p+q.pt+b", ["a:file=/p+q.pt,x=1e+5", "b"]),
    ],
)
def test_a_chain_is_split_between_names_and_not_inside_values(text: str, parts: list[str]) -> None:
    assert [str(part) for part in Spec.parse_chain(text)] == parts


def test_commas_part_specs_but_not_their_parameters() -> None:
    assert split_specs("fgsm,patch:area=0.1,steps=9,none") == ["fgsm", "patch:area=0.1,steps=9", "none"]
    assert split_specs("a,b:x,c=1,d") == ["a", "b:x,c=1", "d"]


@pytest.mark.parametrize("text", ["", ":x", "lgs:=3", "lgs:a,b", "lgs:a=1,a=2"])
def test_a_text_without_meaning_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Spec.parse(text)


@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        ("attack", ["fgsm:eps=0.1", "fgsm:eps=0.10", "fgsm:eps=1e-1", "fgsm:eps=1/10"]),
        ("attack", ["fgsm:eps=8/255", "fgsm:eps=0.03137254901960784", "fgsm:eps=16/510"]),
        ("attack", ["patch:area=0.1,scale=1:1", "patch:scale=1.0:1,area=.1"]),
        ("attack", ["greedyfool:pixels=none", "greedyfool:pixels=None"]),
        ("defense", ["jpeg:quality=30", "jpeg:quality=030", "jpeg:quality=+30"]),
        ("defense", ["apr:attention=false", "apr:attention=False", "apr:attention=0", "apr:attention=no"]),
        ("defense", ["tvm:weight=30+median", "tvm:weight=30.0+median"]),
    ],
)
def test_all_spellings_of_a_value_are_one_text(kind: Kind, spellings: list[str]) -> None:
    assert {canonical_text(kind, text) for text in spellings} == {spellings[0]}


def test_texts_of_a_value_that_is_no_number_stay_as_they_are() -> None:
    def make(name: str, file: Path, rule: Literal["01", "1"] = "1") -> None:
        """Takes texts."""

    spec = Spec.parse("make:file=./01.PNG,name=007,rule=01")
    assert canonical(spec, make, "maker") == spec


@pytest.mark.parametrize("value", [8 / 255, 0.1, 1 / 3, 2.0, 0.0, 1e-7, 1e22, 0.1 + 0.2, 4 / 49, -0.5, float("inf")])
def test_a_written_number_is_read_back_as_the_same(value: float) -> None:
    assert parse_value(write_value(value), float) == value


def test_the_texts_of_all_records_are_canonical() -> None:
    texts: set[tuple[Kind, str]] = set()
    for path in RECORDS.rglob("*.json"):
        cell = re.search(r'"cell": \{[^}]*\}', path.read_text(encoding="utf-8"))
        for kind in ("attack", "defense") if cell else ():
            texts |= {(kind, text) for text in re.findall(f'"{kind}": "([^"]*)"', cell[0])}
    assert len(texts) > 50
    for kind, text in texts:
        if not text.startswith("imported:"):
            assert canonical_text(kind, text) == text


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("8/255", float, 8 / 255),
        ("3", int, 3),
        ("0.5:1", tuple[float, float], (0.5, 1.0)),
        ("none", int | None, None),
        ("true", bool, True),
        ("a", Literal["a", "b"], "a"),
    ],
)
def test_values_are_read_as_their_annotation_says(text: str, kind: object, value: object) -> None:
    assert parse_value(text, kind) == value


@pytest.mark.parametrize(
    ("text", "kind"),
    [("x", float), ("1/0", float), ("1.5", int), ("c", Literal["a", "b"]), ("1", tuple[float, float])],
)
def test_a_value_that_does_not_fit_is_refused_with_what_was_expected(text: str, kind: object) -> None:
    with pytest.raises(InputError, match=r"Expected .* but got"):
        parse_value(text, kind)
