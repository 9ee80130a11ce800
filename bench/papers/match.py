"""Which records a paper's value is compared with: texts and parameters that fit, and which of several is closest."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from fractions import Fraction
from functools import cache
from typing import Any, Literal

from bench.core.identity import without_hashes
from bench.papers.reported import ReportedSetting
from bench.plugins.specs import Spec
from bench.records.samples import Sample
from bench.records.schema import PluginRecord

QueryField = Literal["attack", "goal", "tier", "defense"]
"""The fields of a query that hold texts, the most important first."""
_EFFORTS = ("paper", "standard", "quick")


def fits(wanted: str, text: str, record: PluginRecord | None) -> bool:
    """Whether a plugin's text or record has the name and all parameters of the wanted text."""
    if wanted == "*":
        return True
    (asked, *others), (given, *more) = _parsed(wanted), _parsed(text)
    if others or more:
        return _parsed(wanted) == _parsed(text)
    if asked.name != given.name or (asked.first and asked.first != given.first):
        return False
    values: dict[str, Any] = {**(record.parameters if record else {}), **dict(given.parameters)}
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


def has_setting(setting: ReportedSetting, dataset: str, model: str) -> bool:
    """Whether a record was made with this data and model."""
    dataset, model = without_hashes(dataset), without_hashes(model)
    data = any(fnmatchcase(dataset, one) for one in setting.datasets or (setting.dataset,))
    return data and any(fnmatchcase(model, one) for one in setting.models or (setting.model,))


def accepts(field: QueryField, wanted: str, sample: Sample) -> bool:
    """Whether a sample fits one of the texts in a query."""
    cell = sample.cell
    if field == "attack":
        return fits(wanted, cell.attack, sample.attack)
    if field == "defense":
        return fits(wanted, cell.defense, sample.defense)
    return wanted in ("*", str(getattr(cell, field)))


def preference(sample: Sample) -> tuple[int, int, int, str]:
    """Sorts samples: few parameters first, then more effort, then more images."""
    cell = sample.cell
    extra = sum(len(part.parameters) for text in (cell.attack, cell.defense) for part in _parsed(text))
    return extra, _EFFORTS.index(cell.effort), -(cell.images or 10**9), str(cell)


@cache
def _parsed(text: str) -> tuple[Spec, ...]:
    return Spec.parse_chain(without_hashes(text))
