"""Whether a bundle is what it says: checked without trust, and a random part of its cells computed again."""

from __future__ import annotations

import json
import math
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from bench.engine.judge import CertificateError
from bench.engine.protect import at_work
from bench.engine.provenance import of_attack
from bench.engine.run import evaluate
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.errors import RefusedError
from bench.plugins.fingerprints import plugin_fingerprints
from bench.plugins.registry import make_attack
from bench.records.schema import Cell, Facts, Outcome, PluginRecord
from bench.sandbox.client import RemoteDefense
from bench.sandbox.isolation import IsolationError
from bench.sandbox.process import Limits
from bench.submit import protocol as protocols
from bench.submit.agreement import Compared, MismatchError, compare, compare_fresh, in_words
from bench.submit.bundle import Bundle, unpack
from bench.submit.consistency import contradiction
from bench.submit.sandboxed import behind_walls

Status = Literal["verified", "mismatch", "unverified", "refused"]


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


class _UnverifiedError(Exception):
    """Records that cannot be compared with what would be computed here."""


def verify(
    path: Path,
    share: float = 0.25,
    seed: int | None = None,
    limits: Limits | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> Verdict:
    """Verifies a bundle; the code that it holds is run behind walls only.

    Args:
        path: the bundle.
        share: of the cells that are computed again, at least one for each tier and access of the attacker.
        seed: which cells, and which other images; by default nobody can know.
        limits: for the processes of the defense.
        told: told what is being done.
    """
    bundle, compared = None, list[Compared]()
    try:
        bundle = unpack(path)
        protocol = _protocol(bundle)
        _check_defense(bundle, protocol)
        chooser = random.Random(secrets.randbits(64) if seed is None else seed)
        chosen = sample(bundle.outcomes, share, chooser)
        for number in protocol.seeds:
            testbed = testbed_of(protocol.setting(number))
            _check_scene([one for one in bundle.outcomes if one.cell.seed == number], testbed)
            cells = [one for one in chosen if one.cell.seed == number]
            if cells:
                compared += _compute(bundle, protocol, testbed, cells, chooser, limits, told)
    except RefusedError as error:
        return Verdict("refused", str(error), compared, bundle)
    except MismatchError as error:
        return Verdict("mismatch", str(error), compared, bundle)
    except (_UnverifiedError, IsolationError) as error:
        return Verdict("unverified", str(error), compared, bundle)
    wrong = [one for one in compared if not one.right]
    if wrong:
        return Verdict("mismatch", "; ".join(in_words(one) for one in wrong), compared, bundle)
    return Verdict("verified", f"{len(chosen)} of {len(bundle.outcomes)} cells computed again", compared, bundle)


def sample(outcomes: Sequence[Outcome], share: float, chooser: random.Random) -> list[Outcome]:
    """A random part of the cells with numbers: that share, and at least one, for each tier and access."""
    strata: dict[tuple[str, str], list[Outcome]] = {}
    for one in outcomes:
        if one.status == "ok" and one.attack:
            strata.setdefault((one.cell.tier, str(one.attack.traits.get("access"))), []).append(one)
    if not strata:
        raise _UnverifiedError("no cell has a number")
    chosen = [
        one for _, group in sorted(strata.items()) for one in chooser.sample(group, math.ceil(share * len(group)))
    ]
    return sorted(chosen, key=lambda one: (one.cell.seed, one.cell.attack, one.cell.tier))


def _protocol(bundle: Bundle) -> protocols.Protocol:
    name = bundle.manifest.protocol
    if name not in protocols.names():
        raise _UnverifiedError(f"this version knows no protocol {name!r}; it knows {', '.join(protocols.names())}")
    protocol = protocols.load(name)
    if bundle.manifest.digest != protocol.digest:
        raise _UnverifiedError(f"the protocol {name!r} was another one where the bundle was made")
    return protocol


def _check_defense(bundle: Bundle, protocol: protocols.Protocol) -> None:
    """Whether the records are the protocol's, of this code, and agree with each other."""
    expected = protocol.cells(bundle.manifest.defense)
    lacking = [str(one) for one in set(expected) ^ {one.cell for one in bundle.outcomes}]
    if lacking or len(bundle.outcomes) != len(expected):
        raise RefusedError(f"the records are not those of the protocol {protocol.name!r}, such as {min(lacking)}")
    for one in bundle.outcomes:
        if (one.status == "ok") != (one.facts is not None):
            raise MismatchError(f"{one.cell} has the status {one.status}, {'but' if one.facts else 'and no'} facts")
        if one.facts and one.fingerprints.get("defense") != bundle.fingerprint:
            raise MismatchError(f"{one.cell} was computed with another code than the bundle's")
    for seed in protocol.seeds:
        if told := contradiction([one for one in bundle.outcomes if one.cell.seed == seed]):
            raise MismatchError(told)


def _check_scene(outcomes: Sequence[Outcome], testbed: Testbed) -> None:
    """Whether the records are of the images, the model and the attacks that are here."""
    for one in outcomes:
        if one.facts is None:
            continue
        attack = make_attack(one.cell.attack, one.cell.effort)
        here = testbed.fingerprints | plugin_fingerprints("attack", attack)
        other = sorted(name for name, value in here.items() if one.fingerprints.get(name) != value)
        if other:
            raise _UnverifiedError(f"{one.cell} was computed with another {', '.join(other)} than there is here")
        if one.facts.index != testbed.indices.tolist() or one.facts.label != testbed.labels.tolist():
            raise MismatchError(f"{one.cell} has other images or labels than its data set")
        if one.attack != _as_recorded(of_attack(one.cell.attack, attack)) or one.classes != testbed.classes:
            raise MismatchError(f"{one.cell} describes its attack or its classes in another way than they are")


def _as_recorded(record: PluginRecord) -> PluginRecord:
    """As it comes back from JSON, which has no tuples."""
    return PluginRecord(**json.loads(json.dumps(asdict(record))))


def _compute(
    bundle: Bundle,
    protocol: protocols.Protocol,
    testbed: Testbed,
    recorded: Sequence[Outcome],
    chooser: random.Random,
    limits: Limits | None,
    told: Callable[[str], None],
) -> list[Compared]:
    """Computes the cells of one seed again, and one of them on other images of the data set."""
    told("starting the defense behind walls")
    with behind_walls(bundle, testbed, limits) as defense:
        for one in recorded:
            if one.defense is None or asdict(one.defense) != defense.about["defense"]:
                raise MismatchError(f"{one.cell} describes its defense in another way than the code does")
        compared = []
        for one in recorded:
            told(f"computing again: {one.cell.attack}, {one.cell.tier}")
            compared += compare(
                one, _again(one.cell, testbed.setting, defense), bool(defense.about["views"][""]["random"])
            )
        first = chooser.choice(recorded)
        other = replace(first.cell, seed=chooser.randrange(2**16, 2**31))
        told(f"computing on other images: {other.attack}, {other.tier}")
        return compared + compare_fresh(first, _again(other, protocol.setting(other.seed), defense))


def _again(cell: Cell, setting: Setting, defense: RemoteDefense) -> Facts:
    """The facts of a cell, with the defense in its boxes."""
    testbed = testbed_of(setting)
    try:
        facts = evaluate(cell, testbed, at_work(defense, {}, testbed), lambda share, doing: None).outcome.facts
    except (RefusedError, IsolationError):
        raise
    except CertificateError as error:
        raise RefusedError(f"the certificate is broken: {error}") from error
    except Exception as error:
        raise _UnverifiedError(f"{cell} cannot be computed again: {type(error).__name__}: {error}") from error
    if facts is None:
        raise _UnverifiedError(f"{cell} has no facts when it is computed again")
    return facts
