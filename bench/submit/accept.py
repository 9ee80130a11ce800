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
from bench.report import write_report
from bench.submit.bundle import Bundle, checksum_of
from bench.submit.submit import manifest_text
from bench.submit.verify import Verdict


def accept(verdict: Verdict, results: Path, replace_other: bool = False) -> list[Path]:
    """Puts the records of a verified bundle on the board, and its code below results/submissions.

    Args:
        verdict: of `verify`, from this very process: a verdict in a file would be somebody's claim.
        results: the results folder.
        replace_other: whether another submission of the same name may be replaced.

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
    written = [store.save(_signed(outcome, bundle)) for outcome in verdict.outcomes]
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
            f"Another defense is named {bundle.name!r} ({addresses('defense')[bundle.name]}). Rename the new one."
        )
    known = folder / "bundle.json"
    if not known.is_file() or replace_other:
        return
    if checksum_of(json.loads(known.read_text(encoding="utf-8"))["files"]) != bundle.checksum:
        raise InputError(
            f"Another submission in {folder} is named {bundle.name!r}. Rename the new one, or replace the old one "
            f"with --replace."
        )


def _signed(outcome: Outcome, bundle: Bundle) -> Outcome:
    """The record with where it comes from. What its training and its cells took on other machines is left out."""
    origin = {
        "submission": f"{bundle.manifest.benchmark} by {bundle.manifest.author or 'unnamed'}",
        "bundle": bundle.checksum,
    }
    return replace(
        outcome,
        fingerprints=outcome.fingerprints | {"defense": bundle.fingerprint},
        provenance=outcome.provenance | origin,
        training={},
        seconds={},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _verdict_text(verdict: Verdict) -> str:
    """What was computed again, for readers."""
    content = {
        "status": verdict.status,
        "reason": verdict.reason,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "compared": [asdict(measure) | {"cell": str(measure.cell)} for measure in verdict.compared],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
