"""Adversarial images from anyone against a defense on the board: audited and recounted, they lower its row."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from bench.contracts import Attack, Goal, InputError, answers
from bench.core.goals import predicted
from bench.core.text import plain
from bench.engine.audit import AuditError, audit
from bench.engine.craft import Crafted
from bench.engine.judge import judge, spare_lost
from bench.engine.protect import Protected, protect
from bench.engine.provenance import make_outcome
from bench.engine.setting import Setting, cell_of, name_files
from bench.engine.testbed import Testbed, testbed_of
from bench.errors import RefusedError
from bench.plugins.fingerprints import plugin_fingerprints
from bench.plugins.registry import canonical_text, make_attack, make_defense
from bench.records.metrics import attacked_accuracy, worst_case
from bench.records.schema import Cell, Effort, Outcome, PluginRecord, Tier
from bench.records.store import Store
from bench.report import write_report
from bench.submit.bundle import check_tensors, unpack
from bench.submit.sandboxed import behind_walls, protected_by


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        outcome: its record.
        before, after: the row's worst case over all attacks of this tier and budget, as shares.
        files: what was written.
    """

    outcome: Outcome
    before: float
    after: float
    files: list[Path]


def import_attack(
    file: Path,
    name: str,
    author: str,
    defense: str,
    within: str,
    setting: Setting,
    results: Path,
    effort: Effort = "standard",
    tier: Tier = "adaptive",
    bundle: Path | None = None,
) -> Imported:
    """Judges somebody's adversarial images and puts them on the board as an attack of their own.

    Images that are not in the file count as not attacked; so do, in the adaptive tier, those that the defended model
    gets wrong by itself, since a detector that rejects these would otherwise be credited with catching them.

    Args:
        file: safetensors with `adversarial`, (n, c, h, w), float32 in [0, 1] or uint8, and `index`, (n,), int64:
            each image's place in the data set.
        name: what the attack will be called: `imported:NAME`.
        author: who made the images; shown with them.
        defense: whose row it is.
        within: an attack of the board, as text; every image must keep its budget.
        setting, effort, tier: which board. An attacker who knows the defense is adaptive.
        results: the results folder.
        bundle: of a submitted defense, whose code then runs behind walls.

    Raises:
        InputError: the file cannot be read, an image leaves the budget, or the board has no such row.
        RefusedError: the bundle breaks a rule, or its defense does what it must not.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise InputError(f"Expected a name of small letters, digits and hyphens, but got {name!r}.")
    if not author.strip() or not author.isprintable() or len(author) > 100:
        raise InputError(f"Expected an author of at most 100 printable characters, but got {author!r}.")
    if not bundle:
        defense = canonical_text("defense", defense)
        defense, files = name_files(defense, make_defense(defense))
        setting = replace(setting, files=tuple(files.items()))
    testbed, budget_of = testbed_of(setting), make_attack(within, effort)
    cell = cell_of(setting, testbed.dataset, f"imported:{name}", defense, tier, effort)
    store = Store(results)
    row = _row(store, cell, str(budget_of.budget))
    content = _content(file)
    adversarial, count = _images(file.name, content, testbed)
    try:
        audit(budget_of, testbed.images, adversarial, testbed.indices.tolist())
    except AuditError as error:
        raise InputError(f"Nothing was imported: {error}.") from error
    with _protected(testbed, row[0], bundle) as protected:
        outcome = _judged(cell, testbed, budget_of, protected, adversarial)
    before, after = _worst(row), _worst([*row, outcome])
    today, checksum = datetime.now(UTC).date().isoformat(), hashlib.sha256(content).hexdigest()
    parameters = {"author": author, "date": today, "images": count, "sha256": checksum, "within": within}
    parameters |= {"file": plain(file.name)} | ({"bundle": plain(bundle.name)} if bundle else {})
    parameters |= {"worst_before": round(before, 6), "worst_after": round(after, 6)}
    note = (
        f"Made by {author}, imported on {today}: the worst case of {defense} ({tier}) was {100 * before:.1f} % and is "
        f"{100 * after:.1f} % with it."
    )
    of_defense = {key: value for key, value in row[0].fingerprints.items() if key.endswith("defense")}
    outcome = replace(
        outcome,
        defense=row[0].defense,
        attack=_record(name, author, budget_of, parameters, note),
        fingerprints=outcome.fingerprints | of_defense | {"attack": checksum[:12]},
    )
    return Imported(outcome, before, after, [store.save(outcome), *write_report(results)])


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"Expected a file of adversarial images, but {file} cannot be read: {error}.") from error


def _row(store: Store, cell: Cell, budget: str) -> list[Outcome]:
    """The records of the same row and board, without this one."""
    same = replace(cell, attack="")
    row = [
        outcome
        for outcome in store.outcomes()
        if replace(outcome.cell, attack="") == same
        and outcome.cell.attack != cell.attack
        and outcome.facts
        and outcome.attack
        and outcome.attack.traits.get("budget") == budget
    ]
    if not row:
        raise InputError(
            f"Expected a row of {cell.defense} ({cell.tier}, {cell.images} images, effort {cell.effort}) against "
            f"{budget} in {store.folder}, but the board has none. Compute it first with bench run."
        )
    return row


def _images(name: str, content: bytes, testbed: Testbed) -> tuple[Tensor, int]:
    """All images of the testbed, those of the file in their places, and how many these are."""
    try:
        check_tensors(name, content)
        tensors = load(content)
    except (RefusedError, SafetensorError) as error:
        raise InputError(f"Expected adversarial images as safetensors, but {error}.") from error
    if set(tensors) != {"adversarial", "index"}:
        names = plain(", ".join(sorted(tensors)))
        raise InputError(f"Expected tensors named adversarial and index in {name}, but got {names}.")
    images, index = tensors["adversarial"], tensors["index"]
    shape = (len(index) if index.dim() == 1 else -1, *testbed.image_shape)
    if images.shape != shape or index.dtype != torch.int64 or images.dtype not in (torch.float32, torch.uint8):
        sides = ", ".join(map(str, testbed.image_shape))
        raise InputError(
            f"Expected adversarial of shape (n, {sides}), float32 or uint8, and index of shape (n,), int64, but got "
            f"{tuple(images.shape)} {images.dtype} and {tuple(index.shape)} {index.dtype}."
        )
    places = {number: place for place, number in enumerate(testbed.indices.tolist())}
    numbers = index.tolist()
    wrong = [number for number in numbers if number not in places] or [
        number for number, count in Counter(numbers).items() if count > 1
    ]
    if not numbers or wrong:
        raise InputError(f"Expected each evaluated image at most once, but got image {wrong[:1] or 'none'}.")
    rows = torch.tensor([places[number] for number in numbers], device=testbed.device)
    adversarial = testbed.images.clone()
    adversarial[rows] = (images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images).to(testbed.device)
    return adversarial, len(numbers)


@contextmanager
def _protected(testbed: Testbed, recorded: Outcome, path: Path | None) -> Iterator[Protected]:
    """The defense of a record at work, of the same code, weights and tensors; out of a bundle it is behind walls."""
    defense, submitted = recorded.cell.defense, recorded.provenance.get("bundle")
    if path is None:
        if submitted:
            raise InputError(f"The row of {defense} comes from a submission. Give its bundle with --bundle.")
        protected = protect(testbed, defense, lambda share, doing: None)
        here = plugin_fingerprints("defense", protected.defense)
        if any(recorded.fingerprints.get(key) != value for key, value in here.items()):
            raise InputError(f"The row of {defense} was computed with other code. Compute it again with bench run.")
        yield protected
        return
    bundle = unpack(path)
    if bundle.manifest.defense != defense:
        raise InputError(f"Expected a bundle of {defense}, but {path} holds {bundle.manifest.defense}.")
    if bundle.checksum != submitted:
        raise InputError(
            f"The row of {defense} was computed with other code, weights or learned tensors than {path} holds."
        )
    with behind_walls(bundle, testbed) as walled:
        yield protected_by(walled, testbed)


def _judged(cell: Cell, testbed: Testbed, attack: Attack, protected: Protected, adversarial: Tensor) -> Outcome:
    """The record, with every fact counted here."""
    goal = Goal(testbed.goal.labels, testbed.goal.targets, protected.model.rejects)
    logits = answers(testbed.bare, adversarial, testbed.streams.derive("recount"))
    unknown = torch.zeros(len(testbed), dtype=torch.int64, device=testbed.device)
    eligible, right = goal.eligible(protected.clean[0]), predicted(logits) == testbed.labels
    crafted = Crafted(adversarial, eligible, right, forwards=unknown, backwards=unknown)
    if cell.tier == "adaptive":
        crafted = spare_lost(crafted, protected, testbed)
    facts = judge(attack, protected, crafted, crafted, testbed)
    made = make_outcome(cell, testbed, attack, protected, crafted, facts, 1, {})
    return replace(made, queries={})


def _worst(row: list[Outcome]) -> float:
    """Share of the images that survive every attack."""
    accuracy = attacked_accuracy(worst_case([outcome.facts for outcome in row if outcome.facts]))
    return accuracy.value if accuracy else 1.0


def _record(name: str, author: str, attack: Attack, parameters: dict[str, object], note: str) -> PluginRecord:
    traits: dict[str, object] = {"threat_model": attack.budget.threat_model, "budget": str(attack.budget)}
    traits |= {"access": "imported", "universal": False, "imported": True}
    return PluginRecord(f"imported:{name}", f"{name} (by {author})", "", parameters, traits, note)
