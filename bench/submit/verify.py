"""Whether a bundle is what it says: checked without trust, and its cells, or a random part of them, computed again."""

from __future__ import annotations

import math
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bench.benchmarks.named import Benchmark, benchmark_names, load_benchmark
from bench.contracts import answers
from bench.core.text import plain
from bench.engine.independence import FEW, hidden_input
from bench.engine.inputs import attack_fingerprints
from bench.engine.judge import CertificateError
from bench.engine.on_benchmark import Inputs, cells_on, check_inputs
from bench.engine.prepare import full_float32
from bench.engine.protect import Protected
from bench.engine.provenance import describe_attack
from bench.engine.run import Computed, evaluate
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.errors import InputError, RefusedError
from bench.memory import out_of_memory
from bench.plugins.registry import make_attack
from bench.records.schema import Cell, Facts, Outcome
from bench.records.warnings import HIDDEN_INPUTS, warnings_of
from bench.sandbox.client import Remote, RemoteDefense
from bench.sandbox.isolation import IsolationError
from bench.sandbox.process import Limits
from bench.submit.agreement import Compared, MismatchError, compare_other_images, compare_with_record, in_words
from bench.submit.bundle import Bundle, unpack
from bench.submit.consistency import contradiction
from bench.submit.sandboxed import behind_walls, protected_by

VerdictStatus = Literal["verified", "mismatch", "unverified", "refused"]


@dataclass(frozen=True)
class Verdict:
    """What came of a verification.

    Attributes:
        status: verified; mismatch (a record is not what its code gives); refused (the bundle or its code breaks a
            rule); unverified (this machine cannot compute it).
        reason: why it is not verified, or what was done.
        compared: everything that was computed again.
        bundle: what was read, None where it could not be.
        outcomes: of a verified bundle, the records to publish.
    """

    status: VerdictStatus
    reason: str
    compared: Sequence[Compared] = ()
    bundle: Bundle | None = None
    outcomes: Sequence[Outcome] = ()


class _UnverifiedError(Exception):
    """This machine cannot compute what has to be compared."""


def verify(
    path: Path,
    share: float = 0.25,
    seed: int | None = None,
    limits: Limits | None = None,
    progress: Callable[[str], None] = lambda line: None,
    inputs: Inputs = Inputs(),  # noqa: B008  # it is frozen
) -> Verdict:
    """Verifies a bundle; the code in it runs behind walls only.

    Args:
        path: the bundle.
        share: of the cells that are computed again, above 0; always at least one for each attack and tier, and each
            cell that has no number, or a number of other code or data than those here.
        seed: which cells, and which other images; by default nobody can know.
        limits: for the processes of the defense.
        progress: called with what is being done.
        inputs: where the benchmark's data and model are; nothing in a bundle chooses what is loaded here.

    Raises:
        InputError: the share is out of range, or these are not such as the bundle's benchmark is about.
    """
    if not 0 < share <= 1:
        raise InputError(f"Expected a share of the cells above 0 and up to 1, but got {share:g}.")
    bundle, compared, outcomes, again = None, list[Compared](), list[Outcome](), 0
    chooser = random.Random(secrets.randbits(64) if seed is None else seed)
    try:
        bundle = unpack(path)
        benchmark = _benchmark(bundle)
        settings = {number: inputs.setting(benchmark, number) for number in benchmark.seeds}
        check_inputs(benchmark, list(settings.values()))
        _check_records(bundle, benchmark, testbed_of(settings[benchmark.seeds[0]]))
        for number, setting in settings.items():
            recorded = [outcome for outcome in bundle.outcomes if outcome.cell.seed == number]
            testbed = testbed_of(setting)
            chosen = _chosen(recorded, share, chooser, testbed, bundle)
            progress(f"computing {len(chosen)} of {len(recorded)} cells again, with the defense behind walls")
            with behind_walls(bundle, testbed, limits) as defense:
                publishable = _computed(defense, recorded, chosen, testbed, compared, progress)
                first = chooser.choice([outcome for outcome in publishable if outcome.cell in chosen])
                compared += _on_other_images(first, defense, setting, chooser, progress)
                outcomes, again = [*outcomes, *publishable], again + len(chosen)
    except RefusedError as error:
        return Verdict("refused", plain(str(error)), compared, bundle)
    except MismatchError as error:
        return Verdict("mismatch", plain(str(error)), compared, bundle)
    except (_UnverifiedError, IsolationError) as error:
        return Verdict("unverified", plain(str(error)), compared, bundle)
    if wrong := [measure for measure in compared if not measure.right]:
        return Verdict("mismatch", "; ".join(map(in_words, wrong)), compared, bundle)
    empty = sum(outcome.facts is None for outcome in bundle.outcomes)
    note = f", of which {empty} had no number in the bundle" if empty else ""
    return Verdict("verified", f"{again} of {len(outcomes)} cells computed again{note}", compared, bundle, outcomes)


def sample(outcomes: Sequence[Outcome], share: float, chooser: random.Random) -> list[Outcome]:
    """A random part of the cells: that share, and at least one, of each attack and tier."""
    strata: dict[tuple[str, str], list[Outcome]] = {}
    for outcome in outcomes:
        strata.setdefault((outcome.cell.attack, outcome.cell.tier), []).append(outcome)
    return [one for group in strata.values() for one in chooser.sample(group, math.ceil(share * len(group)))]


def _benchmark(bundle: Bundle) -> Benchmark:
    name = bundle.manifest.benchmark
    if name not in benchmark_names():
        raise RefusedError(f"this version knows no benchmark {name!r}; it knows {', '.join(benchmark_names())}")
    benchmark = load_benchmark(name)
    if bundle.manifest.digest != benchmark.digest:
        raise RefusedError(f"the bundle's benchmark {name!r} is not the published one")
    return benchmark


def _check_records(bundle: Bundle, benchmark: Benchmark, testbed: Testbed) -> None:
    """Whether the records are the benchmark's on the data and model here, of this code, and agree with each other."""
    expected = cells_on(benchmark, testbed, bundle.manifest.defense)
    if differing := set(expected) ^ {outcome.cell for outcome in bundle.outcomes}:
        example = min(map(str, differing))
        raise RefusedError(
            f"the records are not those of the benchmark {benchmark.name!r} with the data and the model here, such as "
            f"{example}"
        )
    for seed in benchmark.seeds:
        if fault := contradiction([outcome for outcome in bundle.outcomes if outcome.cell.seed == seed]):
            raise MismatchError(fault)


def _chosen(
    recorded: Sequence[Outcome], share: float, chooser: random.Random, testbed: Testbed, bundle: Bundle
) -> set[Cell]:
    """The cells of one seed to compute again: all that are not comparable, and a sample of the others."""
    comparable = [outcome for outcome in recorded if _comparable(outcome, testbed, bundle)]
    others = {outcome.cell for outcome in recorded} - {outcome.cell for outcome in comparable}
    return others | {outcome.cell for outcome in sample(comparable, share, chooser)}


def _comparable(outcome: Outcome, testbed: Testbed, bundle: Bundle) -> bool:
    """Whether a record has numbers, and of the code and data that are here."""
    if outcome.facts is None:
        return False
    if outcome.facts.index != testbed.indices.tolist() or outcome.facts.label != testbed.labels.tolist():
        raise MismatchError(f"{outcome.cell} has other images or labels than its data set")
    here = _inputs(outcome.cell, testbed) | {"defense": bundle.fingerprint}
    return all(outcome.fingerprints.get(name) == value for name, value in here.items())


def _inputs(cell: Cell, testbed: Testbed) -> dict[str, str]:
    """The fingerprints of what a cell is computed with here, beside its defense."""
    return testbed.fingerprints | attack_fingerprints(make_attack(cell.attack, cell.effort), cell.tier)


def _computed(
    defense: RemoteDefense,
    recorded: Sequence[Outcome],
    chosen: set[Cell],
    testbed: Testbed,
    compared: list[Compared],
    progress: Callable[[str], None],
) -> list[Outcome]:
    """The records of one seed as they may be published: computed again, or without what nobody has checked.

    What is compared goes to `compared`.
    """
    protected, memory_checked, outcomes = protected_by(defense, testbed), False, []
    for outcome in recorded:
        facts = outcome.facts
        if outcome.cell not in chosen and facts:
            outcomes.append(_stripped(outcome.cell, facts, defense, testbed))
            continue
        progress(f"computing again: {outcome.cell.attack}, {outcome.cell.tier}")
        computed, again = _again(outcome.cell, protected, testbed)
        memory_checked = memory_checked or _check_memory(computed)
        if facts:
            compared += compare_with_record(outcome.cell, facts, again, protected.model.random)
        outcomes.append(replace(computed.outcome, defense=defense.about.defense))
    return outcomes


@full_float32()
def _again(cell: Cell, protected: Protected, testbed: Testbed) -> tuple[Computed, Facts]:
    """The cell with the defense in its processes; raises RefusedError where the defense gives no number."""
    try:
        computed = evaluate(cell, testbed, protected, lambda share, doing: None)
    except (RefusedError, IsolationError):
        raise
    except CertificateError as error:
        raise RefusedError(f"the certificate is broken: {error}") from error
    except Exception as error:
        if isinstance(error, OSError) or out_of_memory(error):
            raise _UnverifiedError(f"{cell} cannot be computed on this machine: {error}") from error
        raise RefusedError(f"{cell} gives no number here: {type(error).__name__}: {error}") from error
    facts = computed.outcome.facts
    if facts is None:
        raise RefusedError(f"{cell} gives no number here: {computed.outcome.reason}")
    for name, (check, text) in HIDDEN_INPUTS.items():
        if name in facts.noted:
            raise RefusedError(f"{check}: {text}")
    return computed, facts


def _check_memory(computed: Computed) -> bool:
    """Raises RefusedError if the answers to attacked images depend on whether their originals were shown before.

    Each judgement has a process of its own, so memory gains nothing here; elsewhere it would.

    Returns:
        Whether the attack changed any image, so that this could be checked.
    """
    testbed, model, attacked = computed.testbed, computed.protected.model, computed.attacked.adversarial
    rows = (attacked != testbed.images).flatten(1).any(1).nonzero()[:FEW, 0]
    if not isinstance(model, Remote) or not len(rows):
        return False
    used, unused, rng = model.elsewhere(), model.unused(), testbed.streams.derive("memory")
    logits = answers(unused, attacked, rng)[rows]
    answers(used, testbed.images, rng.derive("clean"))  # last, since the process lives until another one is asked
    if hidden := hidden_input(used, unused, attacked[rows], rng[rows], logits):
        check, text = HIDDEN_INPUTS[hidden]
        raise RefusedError(f"{check}: {text}")
    return True


def _stripped(cell: Cell, facts: Facts, defense: RemoteDefense, testbed: Testbed) -> Outcome:
    """A record of facts that others of the bundle stand for; whatever else its maker says of it is left out."""
    facts = replace(facts, noted={})
    return Outcome(
        cell=cell,
        status="ok",
        classes=testbed.classes,
        attack=describe_attack(cell.attack, make_attack(cell.attack, cell.effort)),
        defense=defense.about.defense,
        facts=facts,
        warnings=warnings_of(facts, testbed.classes),
        fingerprints=_inputs(cell, testbed),
    )


def _on_other_images(
    first: Outcome, defense: RemoteDefense, setting: Setting, chooser: random.Random, progress: Callable[[str], None]
) -> list[Compared]:
    """One cell on images of the data set that the benchmark does not have."""
    cell = replace(first.cell, seed=chooser.randrange(2**16, 2**31))
    progress(f"computing on other images: {cell.attack}, {cell.tier}")
    testbed = testbed_of(replace(setting, seed=cell.seed))
    _, others = _again(cell, protected_by(defense, testbed), testbed)
    return compare_other_images(first.cell, first.facts, others) if first.facts else []
