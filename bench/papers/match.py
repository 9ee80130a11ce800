"""Which records stand beside a value of a paper: texts and parameters that fit, and which of several is closest."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from bench.papers.reported import Place
from bench.plugins.specs import Spec
from bench.records.schema import PluginRecord
from bench.report.grouping import Sample

Asked = Literal["attack", "goal", "tier", "defense"]
"""The fields of a query that hold texts, the most telling first."""
_EFFORTS = ("paper", "standard", "quick")


def fits(wanted: str, text: str, record: PluginRecord | None) -> bool:
    """Whether a plugin's text, or else its record, has the name and all the parameters of the wanted text."""
    if wanted == "*":
        return True
    (asked, *others), (has, *more) = _parsed(wanted), _parsed(text)
    if others or more:
        return _parsed(wanted) == _parsed(text)
    if asked.name != has.name or (asked.first and asked.first != has.first):
        return False
    values: dict[str, Any] = {**(record.parameters if record else {}), **dict(has.parameters)}
    return all(key in values and _same(value, values[key]) for key, value in asked.parameters)


def _same(text: str, value: Any) -> bool:
    """Whether a parameter's text means this value."""
    if isinstance(value, list | tuple):
        parts = text.split(":")
        return len(parts) == len(value) and all(map(_same, parts, value))
    try:
        return math.isclose(Fraction(text), Fraction(str(value)), rel_tol=1e-6)
    except (ValueError, ZeroDivisionError):
        return text.lower() == str(value).lower()


def at(place: Place, dataset: str, model: str) -> bool:
    """Whether a record was made on this data and model."""
    data = any(fnmatchcase(dataset, one) for one in place.datasets or (place.dataset,))
    return data and any(fnmatchcase(model, one) for one in place.models or (place.model,))


def accepts(asked: Asked, wanted: str, sample: Sample) -> bool:
    """Whether a sample is what one of a query's texts asks for."""
    cell = sample.outcomes[0].cell
    if asked == "attack":
        return fits(wanted, cell.attack, sample.record)
    if asked == "defense":
        return fits(wanted, cell.defense, next((one.defense for one in sample.outcomes if one.defense), None))
    return wanted in ("*", str(getattr(cell, asked)))


def plainness(sample: Sample) -> tuple[int, int, int, str]:
    """Prefers few parameters beside those asked for, more effort, more images."""
    cell = sample.outcomes[0].cell
    extra = sum(len(part.parameters) for text in (cell.attack, cell.defense) for part in _parsed(text))
    return extra, _EFFORTS.index(cell.effort), -(cell.images or 10**9), str(cell)


@cache
def _parsed(text: str) -> tuple[Spec, ...]:
    return Spec.parse_chain(text)
