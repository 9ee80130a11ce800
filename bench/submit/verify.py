"""Whether a bundle is what it says: checked without trust, and a random part of its cells computed again."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.metrics import Estimate, difference, per_image
from bench.outcome import Cell, Facts, Outcome
from bench.protect import Protected, fresh_answers
from bench.records import fingerprints
from bench.registry import make_attack
from bench.run import run_cell
from bench.sandbox.box import Box, IsolationError, Limits, RefusedError
from bench.sandbox.remote import RemoteDefense, remote_defense
from bench.scene import Scene, Setting, scene_of
from bench.submit import protocol as protocols
from bench.submit.bundle import Bundle, unpack
from bench.submit.consistency import contradiction

Status = Literal["verified", "mismatch", "unverified", "refused"]
MEASURES = ("bare_clean", "bare_attacked", "defended_clean", "defended_attacked")
ALLOWED, ALLOWED_RANDOM = 0.02, 0.05
"""By how much a mean may differ when a cell is computed again: rounding on another machine turns single images; a
random defense differs by chance, and must then differ beyond the paired interval, too."""
_BY_CHANCE = 3.3
"""Standard errors by which other images may differ: once in 2,000 honest submissions they differ by more."""


@dataclass(frozen=True)
class Compared:
    """One measure of one cell, as recorded and as computed again.

    Attributes:
        gap: recorded − again.
        right: whether that is little enough.
        fresh: whether it was computed on other images of the same data set.
    """

    cell: Cell
    measure: str
    recorded: float
    again: float
    gap: Estimate
    right: bool
    fresh: bool = False


@dataclass(frozen=True)
class Verdict:
    """What came of a verification.

    Attributes:
        status: verified; mismatch (what was computed again differs); unverified (it could not be computed again,
            which is nobody's fault yet); refused (it breaks a rule).
        reason: why it is not verified, or what was done.
        compared: all that was computed again.
        bundle: what was read, None where it could not be.
    """

    status: Status
    reason: str
    compared: Sequence[Compared] = ()
    bundle: Bundle | None = None


class _MismatchError(Exception):
    """Records that are not true."""


class _UnverifiedError(Exception):
    """Records that cannot be compared with what would be computed here."""


def verify(
    path: Path,
    share: float = 0.25,
    seed: int | None = None,
    limits: Limits | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Verifies a bundle; what it holds is run behind walls only.

    Args:
        path: the bundle.
        share: of the cells that are computed again, at least one for each tier and access of the attacker.
        seed: which cells; by default nobody can know.
        limits: for the processes of the defense.
        told: told what is being done.
    """
    bundle, compared = None, list[Compared]()
    try:
        bundle = unpack(path)
        protocol = _protocol(bundle)
        told("reading the records")
        _check_records(bundle, protocol)
        chooser = random.Random(secrets.randbits(64) if seed is None else seed)
        cells = sample(bundle.outcomes, share, chooser)
        for again, fresh in _again(bundle, protocol, cells, chooser, limits or Limits(), told):
            compared += again if not fresh else _fresh(again)
    except RefusedError as error:
        return Verdict("refused", str(error), compared, bundle)
    except _MismatchError as error:
        return Verdict("mismatch", str(error), compared, bundle)
    except (_UnverifiedError, IsolationError) as error:
        return Verdict("unverified", str(error), compared, bundle)
    wrong = [one for one in compared if not one.right]
    if wrong:
        return Verdict("mismatch", "; ".join(in_words(one) for one in wrong), compared, bundle)
    return Verdict("verified", f"{len(cells)} of {len(bundle.outcomes)} cells computed again", compared, bundle)


def in_words(one: Compared) -> str:
    """What was compared, in a sentence for a report."""
    gap = f"{100 * one.gap.value:+.1f} points, {100 * one.gap.low:+.1f} to {100 * one.gap.high:+.1f}"
    where = "on other images" if one.fresh else "again"
    return (
        f"{one.measure} of {one.cell.attack} ({one.cell.tier}, seed {one.cell.seed}) is recorded as "
        f"{100 * one.recorded:.1f} % and is {100 * one.again:.1f} % {where} ({gap})"
    )
