"""Puts a submission on the board, if it verifies."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.core.files import write_bytes, write_text
from bench.errors import InputError
from bench.plugins.registry import addresses
from bench.records.schema import Outcome
from bench.records.store import Store
from bench.records.warnings import warnings_of
from bench.report import write_report
from bench.submit.bundle import Bundle
from bench.submit.submit import manifest_text
from bench.submit.verify import Verdict


def accept(verdict: Verdict, results: Path, replace_other: bool = False) -> list[Path]:
    """Puts the records of a verified bundle on the board, and its code below results/submissions.

    Args:
        verdict: of `verify`, from this very process: a verdict in a file would be somebody's word.
        results: the results folder.
        replace_other: whether a submission of the same name with other code may be replaced.

    Returns:
        What was written, the tables last.

    Raises:
        InputError: it is not verified, or its name is taken.
    """
    bundle = verdict.bundle
    if verdict.status != "verified" or bundle is None:
        raise InputError(f"Expected a bundle that verifies, but it is {verdict.status}: {verdict.reason}.")
    folder = results / "submissions" / bundle.name
    _check_name(bundle, folder, replace_other)
    store = Store(results)
    store.prepare()
    written = [store.save(_cleaned(one, bundle)) for one in bundle.outcomes]
    for name, content in bundle.code.items():
        write_bytes(folder / "code" / name, content)
        written.append(folder / "code" / name)
    for name, text in (("bundle.json", manifest_text(bundle.manifest)), ("verdict.json", _verdict_text(verdict))):
        write_text(folder / name, text)
        written.append(folder / name)
    return written + write_report(results)


def _check_name(bundle: Bundle, folder: Path, replace_other: bool) -> None:
    if bundle.name in addresses("defense"):
        raise InputError(
            f"There is a defense {bundle.name!r} already ({addresses('defense')[bundle.name]}). Rename it."
        )
    known = folder / "bundle.json"
    if not known.is_file() or replace_other:
        return
    same = {f"code/{name}" for name in bundle.code}
    before = json.loads(known.read_text(encoding="utf-8"))["files"]
    if any(before.get(name) != bundle.manifest.files[name] for name in same):
        raise InputError(
            f"There is a submission {bundle.name!r} with other code in {folder}. Rename the new one, or say "
            f"--replace to put it in the place of the old one."
        )


def _cleaned(outcome: Outcome, bundle: Bundle) -> Outcome:
    """The record with its warnings made here, and a word on where it comes from."""
    told = {name: value for name, value in outcome.provenance.items() if len(value) <= 200 and value.isprintable()}
    return replace(
        outcome,
        warnings=warnings_of(outcome.facts) if outcome.facts else [],
        provenance=told | {"submission": f"{bundle.manifest.protocol} by {bundle.manifest.author or 'unnamed'}"},
    )


def _verdict_text(verdict: Verdict) -> str:
    """What was computed again, for readers."""
    told = {
        "status": verdict.status,
        "reason": verdict.reason,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "compared": [asdict(one) | {"cell": str(one.cell)} for one in verdict.compared],
    }
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"
