"""Adversarial images from anyone against a defense on the board: audited, recounted, and its row lowered."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from bench.contracts import Attack, Goal, InputError, answers
from bench.engine import provenance as records
from bench.engine.craft import Crafted
from bench.engine.judge import judge, spare_lost
from bench.engine.plan import cell_of
from bench.engine.protect import Protected, at_work, protect
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.errors import RefusedError
from bench.plugins.fingerprints import code_fingerprint
from bench.plugins.registry import canonical_text, make_attack
from bench.records.metrics import attacked_accuracy, worst_case
from bench.records.schema import Cell, Effort, Outcome, PluginRecord, Tier
from bench.records.store import Store
from bench.records.warnings import warnings_of
from bench.report import write_report
from bench.submit.bundle import tensors, unpack
from bench.submit.sandboxed import behind_walls


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

    Images that the file does not have count as not attacked; so do, in the adaptive tier, those that the defended model
    gets wrong on its own, since a detector that rejects these would otherwise be credited with having caught them.

    Args:
        file: safetensors with `adversarial`, (n, c, h, w), float32 in [0, 1] or uint8, and `index`, (n,), int64:
            each image's place in the data set.
        name: what the attack will be called: `imported:NAME`.
        author: who made the images; shown with them.
        defense: whose row it is.
        within: an attack of the board, as text; its budget is kept by every image.
        setting, effort, tier: which board. An attacker who knows the defense is adaptive.
        results: the results folder.
        bundle: of a submitted defense, whose code is then run behind walls.

    Raises:
        InputError: the file is none, an image leaves the budget, or the row is not there.
        RefusedError: the bundle is none, or its defense does what it must not.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise InputError(f"Expected a name of small letters, digits and hyphens, but got {name!r}.")
    if not author.strip() or not author.isprintable() or len(author) > 100:
        raise InputError(f"Expected an author of at most 100 printable characters, but got {author!r}.")
    testbed, budget_of = testbed_of(setting), make_attack(within, effort)
    defense = canonical_text("defense", defense)
    cell = cell_of(testbed, f"imported:{name}", defense, tier, effort)
    store = Store(results)
    row = _row(store, cell, str(budget_of.budget))
    content = _content(file)
    adversarial, given = _images(file.name, content, testbed)
    _audit(budget_of, testbed, adversarial)
    with _protected(testbed, defense, bundle) as (protected, code):
        if code != row[0].fingerprints.get("defense"):
            raise InputError(f"The row of {defense} was computed with another code ({code} came). First: bench run.")
        outcome = _judged(cell, testbed, budget_of, protected, adversarial)
    outcome = replace(outcome, defense=row[0].defense)
    outcome.fingerprints["defense"] = code
    before, after = _worst(row), _worst([*row, outcome])
    now = datetime.now(UTC).date().isoformat()
    told = {"author": author, "date": now, "images": given, "sha256": hashlib.sha256(content).hexdigest()}
    told |= {"worst_before": round(before, 6), "worst_after": round(after, 6)}
    note = (
        f"Made by {author}, imported on {now}: the worst case of {defense} ({tier}) was {100 * before:.1f} % and is "
        f"{100 * after:.1f} % with it."
    )
    outcome = replace(outcome, attack=_record(name, author, budget_of, told, note))
    outcome.fingerprints["attack"] = str(told["sha256"])[:12]
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
        one
        for one in store.outcomes()
        if replace(one.cell, attack="") == same
        and one.cell.attack != cell.attack
        and one.facts
        and one.attack
        and one.attack.traits.get("budget") == budget
    ]
    if not row:
        raise InputError(
            f"Expected a row of {cell.defense} ({cell.tier}, {cell.images} images, effort {cell.effort}) against "
            f"{budget} in {store.folder}, but there is none to lower. First: bench run."
        )
    return row


def _images(name: str, content: bytes, testbed: Testbed) -> tuple[Tensor, int]:
    """All images of the testbed, those of the file in their places, and how many these are."""
    try:
        found = tensors(name, content)
    except RefusedError as error:
        raise InputError(f"Expected adversarial images as safetensors, but {error}.") from error
    if set(found) != {"adversarial", "index"}:
        raise InputError(f"Expected tensors named adversarial and index in {name}, but got {', '.join(sorted(found))}.")
    images, index = found["adversarial"], found["index"]
    shape = (len(index) if index.dim() == 1 else -1, *testbed.image_shape)
    if images.shape != shape or index.dtype != torch.int64 or images.dtype not in (torch.float32, torch.uint8):
        sides = ", ".join(map(str, testbed.image_shape))
        raise InputError(
            f"Expected adversarial of shape (n, {sides}), float32 or uint8, and index of shape (n,), int64, but got "
            f"{tuple(images.shape)} {images.dtype} and {tuple(index.shape)} {index.dtype}."
        )
    places = {number: place for place, number in enumerate(testbed.indices.tolist())}
    numbers = index.tolist()
    wrong = [one for one in numbers if one not in places] or [one for one in numbers if numbers.count(one) > 1]
    if not numbers or wrong:
        raise InputError(f"Expected each evaluated image once at the most, but image {wrong[:1] or 'none'} came.")
    rows = torch.tensor([places[one] for one in numbers], device=testbed.device)
    adversarial = testbed.images.clone()
    adversarial[rows] = (images.to(torch.float32) / 255 if images.dtype == torch.uint8 else images).to(testbed.device)
    return adversarial, len(numbers)


def _audit(attack: Attack, testbed: Testbed, adversarial: Tensor) -> None:
    """Every image is one, and within the budget; the error names the first that is not by its index."""
    flat = adversarial.flatten(1)
    for broken, what in (
        (~flat.isfinite().all(1), "holds a value that is no number"),
        ((flat < 0).any(1) | (flat > 1).any(1), "has values outside [0, 1]"),
        (~attack.budget.allows(testbed.images, adversarial), f"is outside the budget ({attack.budget})"),
    ):
        if bool(broken.any()):
            first = int(testbed.indices[int(broken.nonzero()[0])])
            raise InputError(f"Image {first} {what}, and {int(broken.sum()) - 1} more. Nothing was imported.")


@contextmanager
def _protected(testbed: Testbed, defense: str, path: Path | None) -> Iterator[tuple[Protected, str]]:
    """The defense at work and the fingerprint of its code; out of a bundle it is behind walls."""
    if path is None:
        protected = protect(testbed, defense, lambda share, doing: None)
        yield protected, code_fingerprint(protected.defense)
        return
    bundle = unpack(path)
    if bundle.manifest.defense != defense:
        raise InputError(f"Expected a bundle of {defense}, but {path} holds {bundle.manifest.defense}.")
    with behind_walls(bundle, testbed) as walled:
        yield at_work(walled, {}, testbed), bundle.fingerprint


def _judged(cell: Cell, testbed: Testbed, attack: Attack, protected: Protected, adversarial: Tensor) -> Outcome:
    """The record, with every fact counted here."""
    goal = Goal(testbed.goal.labels, testbed.goal.targets, protected.model.rejects)
    logits = answers(testbed.bare, adversarial, testbed.streams.derive("recount"))
    nothing = torch.zeros(len(testbed), dtype=torch.int64, device=testbed.device)
    eligible, right = goal.eligible(protected.clean[0]), logits.argmax(-1) == testbed.labels
    crafted = Crafted(adversarial, eligible, right, forwards=nothing, backwards=nothing)
    if cell.tier == "adaptive":
        crafted = spare_lost(crafted, protected, testbed)
    facts = judge(attack, protected, crafted, crafted, testbed)
    made = records.outcome(cell, testbed, attack, protected, crafted, facts, 1, {})
    return replace(made, queries={}, warnings=warnings_of(facts))


def _worst(row: list[Outcome]) -> float:
    """Share of the images that survive every attack."""
    told = attacked_accuracy(worst_case([one.facts for one in row if one.facts]))
    return told.value if told else 1.0


def _record(name: str, author: str, attack: Attack, told: dict[str, object], note: str) -> PluginRecord:
    traits: dict[str, object] = {"threat_model": attack.budget.threat_model, "budget": str(attack.budget)}
    traits |= {"access": "imported", "universal": False, "imported": True}
    return PluginRecord(f"imported:{name}", f"{name} (by {author})", "", dict(told), traits, note)
