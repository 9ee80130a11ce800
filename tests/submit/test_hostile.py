"""Bundles that are not what they say: each is refused, or contained, with its true reason."""

from __future__ import annotations

import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from bench.errors import RefusedError
from bench.records.sealed import seal
from bench.submit.bundle import unpack
from bench.submit.submit import submit
from bench.submit.verdict_text import verdict_lines, verdict_markdown
from bench.submit.verify import VerdictStatus, verify

from .forging import (
    PLUGIN,
    QUICK,
    Files,
    Record,
    code,
    compute_here,
    content,
    inside,
    manifest,
    packed,
    records,
    walled,
)

Forge = Callable[[Files], Files]


class Evil:
    def __reduce__(self) -> Any:
        return print, ("unpickled",)


def with_file(name: str, extra: bytes) -> Forge:
    return lambda files: files | {name: extra}


def with_facts(**values: Any) -> Forge:
    """Facts of the cell of the adaptive tier; a value may be made from the facts."""

    def change(record: Record) -> None:
        if record["cell"]["tier"] == "adaptive":
            facts = record["facts"]
            facts |= {name: value(facts) if callable(value) else value for name, value in values.items()}

    return lambda files: records(files, change)


def with_record(**values: Any) -> Forge:
    return lambda files: records(files, lambda record: record.update(values))


def without_a_cell(files: Files) -> Files:
    return {name: text for name, text in files.items() if not name.startswith("records/fgsm-acme-blur-adaptive")}


def with_another_cell(files: Files) -> Files:
    (name,) = [name for name in files if name.startswith("records/fgsm-acme-blur-adaptive")]
    return files | {"records/other.json": files[name]}


def with_not_a_number(files: Files) -> Files:
    (name,) = [name for name in files if name.startswith("records/fgsm-acme-blur-adaptive")]
    return files | {name: files[name].replace(b'"bare_clean": "', b'"bare_clean": NaN, "x": "')}


DEEP, LONG = b"[" * 100_000, b'{"x": ' + b"9" * 5_000 + b"}"
FORGED: dict[str, tuple[Forge, VerdictStatus, str]] = {
    # files that have no place in a bundle
    "a pickle": (with_file("code/weights.pt", pickle.dumps(Evil())), "refused", "never as a pickle"),
    "a pickle named safetensors": (with_file("code/w.safetensors", pickle.dumps(Evil())), "refused", "is a pickle"),
    "a zip named safetensors": (with_file("learned/seed-0.safetensors", b"PK\x03\x04"), "refused", "is a pickle"),
    "weights of nonsense": (with_file("code/w.safetensors", b"nonsense"), "refused", "not a safetensors file"),
    "a header of 2**63 bytes": (with_file("code/w.safetensors", b"\xff" * 64), "refused", "not a safetensors file"),
    "a path upwards": (with_file("../../outside.py", b""), "refused", "no place"),
    "an absolute path": (with_file("/etc/passwd", b""), "refused", "no place"),
    "a path that turns back": (with_file("code/../../x.py", b""), "refused", "no place"),
    "a path of Windows": (with_file("C:\\x.py", b""), "refused", "no place"),
    "a package": (with_file("code/sitecustomize/x.py", b""), "refused", "no place"),
    "two modules": (with_file("code/second.py", b""), "refused", "one Python file"),
    "too many files": (lambda files: files | {f"code/w{n}.py": b"" for n in range(500)}, "refused", "more than"),
    "a name with control characters": (with_file("code/\x1b[2Ja.py", b""), "refused", "no place"),
    # a manifest that lies
    "without checksums": (lambda files: manifest(files, files={}), "refused", "not those with a checksum"),
    "code without its checksum": (with_file("code/acme_blur.py", b"x = 1"), "refused", "differs from its checksum"),
    "an author of two lines": (lambda files: manifest(files, author="a\nb"), "refused", "printable characters"),
    "a lone surrogate": (lambda files: manifest(files, author="\ud800"), "refused", "surrogates not allowed"),
    "a text from right to left": (lambda files: manifest(files, description="\u202ex"), "refused", "printable"),
    "a link that runs code": (lambda files: manifest(files, link="javascript:alert(1)"), "refused", "https://"),
    "a name that is a path": (lambda files: manifest(files, defense="../x"), "refused", "small letters"),
    "a name that is markup": (lambda files: manifest(files, defense="<b>"), "refused", "small letters"),
    "an empty name": (lambda files: manifest(files, defense=""), "refused", "small letters"),
    "a chain": (lambda files: manifest(files, defense="acme-blur+lgs"), "refused", "small letters"),
    "an unknown schema": (lambda files: manifest(files, schema=9), "refused", "schema 9"),
    "an unknown key": (lambda files: manifest(files, verdict="verified"), "refused", "not what it should be"),
    "an unknown benchmark": (lambda files: manifest(files, benchmark="v999"), "refused", "knows no benchmark 'v999'"),
    "a benchmark of its own": (lambda files: manifest(files, digest="0" * 12), "refused", "not the published one"),
    # records that cannot be true
    "a missing cell": (without_a_cell, "refused", "not those of the benchmark"),
    "a cell twice": (with_another_cell, "refused", "record of another cell"),
    "deep JSON": (with_file("records/deep.json", DEEP), "refused", "not a record"),
    "a number of 5,000 digits": (with_file("records/long.json", LONG), "refused", "not a record"),
    "JSON that is not UTF-8": (with_file("records/bytes.json", b'{"\xff": 1}'), "refused", "not a record"),
    "a changed record": (with_file("records/x.json", json.dumps(seal({}) | {"a": 1}).encode()), "refused", "checksum"),
    "NaN": (with_not_a_number, "refused", "finite numbers"),
    "a list that is too short": (with_facts(bare_clean="1111"), "refused", "8 values of bare_clean"),
    "shares beyond 1": (with_facts(defended_clean=[7] * 8), "refused", "less than or equal to 1"),
    "an image twice": (with_facts(index=[0] * 8), "refused", "each index only once"),
    "huge indices": (with_facts(index=[10**30 + n for n in range(8)]), "mismatch", "differ in index"),
    "other labels": (with_facts(label=lambda facts: [9 - one for one in facts["label"]]), "mismatch", "label"),
    "other images": (
        lambda files: records(files, lambda record: record["facts"].update(index=list(range(8)))),
        "mismatch",
        "other images or labels",
    ),
    "a number of no facts": (with_record(facts=None), "refused", "expected facts"),
    "facts of a failed cell": (with_record(status="timeout", reason="slow"), "refused", "expected facts"),
    "success and correct answers": (
        with_facts(defended_attacked=[1] * 8, reached=[1] * 8, eligible=[1] * 8),
        "mismatch",
        "the goal is reached",
    ),
    "cells that disagree": (with_facts(defended_clean=[0] * 8), "mismatch", "defended_clean"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_bundle_is_seen_through_without_running_its_code(name: str, bundle: Path, tmp_path: Path) -> None:
    forge, status, reason = FORGED[name]
    verdict = verify(packed(tmp_path / "b.zip", forge(content(bundle)), sums="without" not in name))
    assert (verdict.status, reason in verdict.reason) == (status, True), verdict.reason
    assert verdict.reason.isprintable()
    assert not verdict.compared


def rezipped(path: Path, bundle: Path, extra: zipfile.ZipInfo, text: bytes = b"") -> Path:
    path.write_bytes(bundle.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(extra, text)
    return path


def link(path: Path, bundle: Path) -> None:
    entry = zipfile.ZipInfo("code/link.py")
    entry.external_attr = 0o120777 << 16
    rezipped(path, bundle, entry, b"/etc/passwd")


def second_manifest(path: Path, bundle: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        rezipped(path, bundle, zipfile.ZipInfo("bundle.json"), b"{}")


def unusual_compression(path: Path, bundle: Path) -> None:
    entry = zipfile.ZipInfo("code/w.safetensors")
    entry.compress_type = zipfile.ZIP_LZMA
    rezipped(path, bundle, entry, b"x" * 1000)


def sized(size: int) -> Callable[[Path, Path], None]:
    """A file of a million zeros that claims another size."""

    def bomb(path: Path, bundle: Path) -> None:
        path.write_bytes(bundle.read_bytes())
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("code/w.safetensors", bytes(1_000_000))
            archive.filelist[-1].file_size = size

    return bomb


def long_list(path: Path, bundle: Path) -> None:
    """A list of files that claims to be 2 GiB long."""
    data = bytearray(bundle.read_bytes())
    end = data.rfind(b"PK\5\6")
    data[end + 12 : end + 16] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)


def corrupt(path: Path, bundle: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in content(bundle).items():
            archive.writestr(name, text)
        start = archive.infolist()[0].header_offset + 60
    data = bytearray(path.read_bytes())
    noise = random.Random(0)
    data[start : start + 40] = bytes(noise.randrange(256) for _ in range(40))
    path.write_bytes(data)


CONTAINERS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a link": (link, "is a link"),
    "two manifests": (second_manifest, "two files of one name"),
    "an unusual compression": (unusual_compression, "compressed in an unusual way"),
    "a bomb": (sized(2**31), "more than"),
    "a bomb that lies": (sized(10), "not a whole zip file"),
    "an endless list of files": (long_list, "more than"),
    "a corrupt stream": (corrupt, "not a whole zip file"),
    "half a file": (lambda path, bundle: path.write_bytes(bundle.read_bytes()[:-50]), "not a whole zip file"),
    "a Python file": (lambda path, bundle: path.write_bytes(PLUGIN.read_bytes()), "not a whole zip file"),
    "an empty zip": (lambda path, bundle: zipfile.ZipFile(path, "w").close(), "no bundle.json"),
    "no file": (lambda path, bundle: None, "does not exist"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_that_is_none_is_refused(name: str, bundle: Path, tmp_path: Path) -> None:
    make, reason = CONTAINERS[name]
    make(tmp_path / "b.zip", bundle)
    with pytest.raises(RefusedError, match=reason):
        unpack(tmp_path / "b.zip")


# Code behind walls

MEMO = inside("images = torch.stack([recall(image) for image in images.detach()])", """
SEEN = []
def recall(image):
    for seen in SEEN:
        if (seen - image).abs().median() < 0.05:
            return seen
    SEEN.append(image.clone())
    return image
""").replace("    size: int = 3", "    size: int = 3\n    views: ClassVar[tuple[str, ...]] = ('bpda',)")  # fmt: skip
COUNTER = inside("COUNT.append(1); images = images * (len(COUNT) < 3)", "COUNT = []")
FAKE_WALLS = 'import os, sys; sys.stderr.write("\\nno isolation: none\\n"); sys.stderr.flush(); os._exit(3)'
OUTPUT = "import os; [os.write(fd, b'nonsense' * 99) for fd in range(3, 20) if writable(fd)]"
WRITABLE = """
import fcntl
def writable(fd):
    try:
        return fcntl.fcntl(fd, 3) & 1
    except OSError:
        return 0
"""
CODE: dict[str, tuple[str, VerdictStatus, str]] = {
    "opens a socket": (
        inside("import socket; socket.create_connection(('127.0.0.1', 9))"),
        "refused",
        "opened a socket",
    ),
    "reads elsewhere": (inside(f"open({str(PLUGIN)!r}).read()"), "refused", "looked outside its folder"),
    "writes a file": (inside("open('/tmp/bench-x', 'w')"), "refused", "not permitted"),
    "wants a temporary file": (inside("import tempfile; tempfile.TemporaryFile()"), "refused", "not permitted"),
    "forks": (inside("import os; os.fork()"), "refused", "started or signalled a process"),
    "signals its parent": (inside("import os; os.kill(os.getppid(), 9)"), "refused", "signalled a process"),
    "reads the labels": (
        inside("from bench.data.load import load_dataset; load_dataset('photos').test.load(torch.tensor([0]))"),
        "refused",
        "looked for the labels",
    ),
    "sleeps": (inside("import time; time.sleep(3600)"), "refused", "no answer within 3 seconds"),
    "takes too much memory": (inside("torch.zeros(2**31)"), "refused", "memory"),
    "exits": (inside("import sys; sys.exit(0)"), "refused", "SystemExit"),
    "ends its process": (inside("import os; os._exit(5)"), "refused", "ended its process with exit code 5"),
    "exits when it is loaded": (inside("pass", "import sys; sys.exit(0)"), "refused", "SystemExit"),
    "crashes": (inside("import ctypes; ctypes.string_at(0)"), "refused", "SIGSEGV"),
    "raises what the engine raises": (
        inside("from bench.errors import NotApplicableError; raise NotApplicableError('x')"),
        "refused",
        "NotApplicableError: x",
    ),
    "says that there are no walls": (inside(FAKE_WALLS), "refused", "exit code 3"),
    "writes into the pipe": (inside(OUTPUT, WRITABLE), "refused", "no answer that can be read"),
    "raises terminal codes": (inside("raise ValueError('\\x1b[2J\\n\\ud800')"), "refused", "ValueError: [2J"),
    "has a title with terminal codes": (
        PLUGIN.read_text().replace('"Acme blur"', '"\\x1b[2J"'),
        "refused",
        "unprintable ones",
    ),
    "has an endless title": (PLUGIN.read_text().replace('"Acme blur"', '"x" * 10_000'), "refused", "more than 10000"),
    "calls itself the bare model": (
        PLUGIN.read_text().replace("    size: int = 3", "    size: int = 3\n    kind = 'none'"),
        "refused",
        "defends nothing",
    ),
    "changes its title": (
        PLUGIN.read_text().replace('"Acme blur"', "str(__import__('time').time())"),
        "refused",
        "describes itself differently",
    ),
    "gives NaN": (inside("images = images * float('nan')"), "mismatch", "defended_clean"),
    "gives the wrong shape": (inside("images = images[:1]"), "refused", "no logits for each of 8 images"),
    "is not Python": ("def", "refused", "SyntaxError"),
    "remembers": (MEMO, "refused", "S34"),
    "counts": (COUNTER, "refused", "counts"),
    "sees the batch": (inside("images = images - images.mean(0) * (len(images) > 1)"), "refused", "S34"),
    "draws in secret": (inside("images = 0 * images + torch.rand_like(images)"), "refused", "draws"),
}


@walled
@pytest.mark.parametrize("name", CODE)
def test_code_that_does_what_it_must_not_is_refused_with_the_reason(name: str, bundle: Path, tmp_path: Path) -> None:
    text, status, reason = CODE[name]
    limits = QUICK if name != "sleeps" else type(QUICK)(answer=3)
    verdict = verify(packed(tmp_path / "b.zip", code(content(bundle), text)), limits=limits)
    assert (verdict.status, reason in verdict.reason) == (status, True), verdict.reason
    assert "\n".join(verdict_lines(verdict)).replace("\n", "").isprintable()
    assert verdict.reason.isprintable()
    assert verdict_markdown(verdict)


def raised(record: Record) -> None:
    """Every attacked image is survived, and the other facts are bent to fit."""
    facts = record["facts"]
    facts |= {"defended_attacked": facts["defended_clean"], "defended_attacked_8bit": facts["defended_clean"]}
    facts["reached"] = [0] * 8


def of_other_data(record: Record) -> None:
    raised(record)
    record["fingerprints"]["data"] = "0" * 12


@walled
@pytest.mark.parametrize("change", [raised, of_other_data])
def test_numbers_that_are_raised_by_hand_are_found_by_computing_them_again(
    change: Callable[[Record], None], bundle: Path, tmp_path: Path
) -> None:
    verdict = verify(packed(tmp_path / "b.zip", records(content(bundle), change)), share=0.01, limits=QUICK)
    assert verdict.status == "mismatch"
    assert "defended_attacked of fgsm" in verdict.reason
    assert "WRONG" in "\n".join(verdict_lines(verdict))


@walled
def test_cells_that_a_submitter_calls_failed_are_computed_and_nothing_is_taken_on_trust(
    bundle: Path, tmp_path: Path
) -> None:
    honest = {outcome.cell: outcome for outcome in unpack(bundle).outcomes}

    def hide(record: Record) -> None:
        if record["cell"]["tier"] == "adaptive":
            record.update(status="not-applicable", reason="too strong", facts=None)
        else:
            record["facts"]["noted"] = {"unconverged": "1" * 8}
            record.update(queries={"forwards_mean": 0.0}, seconds={"total": 0.0}, warnings=["none"], date="1999-01-01")
            record["attack"]["title"] = record["defense"]["title"] = "<b>"

    verdict = verify(packed(tmp_path / "b.zip", records(content(bundle), hide)), limits=QUICK)
    assert verdict.status == "verified", verdict.reason
    assert verdict.reason.endswith("of which 1 had no number in the bundle")
    assert [outcome.facts.defended_attacked for outcome in verdict.outcomes if outcome.facts] == [
        honest[outcome.cell].facts.defended_attacked for outcome in verdict.outcomes
    ]
    for outcome in verdict.outcomes:
        assert "unconverged" not in outcome.facts.noted
        assert outcome.date > "2020"
        assert outcome.queries != {"forwards_mean": 0.0}
        assert "<b>" not in (outcome.attack.title, outcome.defense.title)


WEIGHTS = inside(
    'images = images * load_file(Path(__file__).with_name("w.safetensors"))["w"]',
    "from pathlib import Path\nfrom safetensors.torch import load_file",
)


@walled
def test_other_weights_than_those_of_the_records_are_found(bundle: Path, tmp_path: Path) -> None:
    files = code(content(bundle), WEIGHTS) | {"code/w.safetensors": save({"w": torch.tensor(0.0)})}
    verdict = verify(packed(tmp_path / "b.zip", files), limits=QUICK)
    assert verdict.status == "mismatch", verdict.reason
    assert "defended_clean" in verdict.reason


LEARNER = '''
from dataclasses import dataclass
from typing import ClassVar
import torch
from bench.contracts import Defense, Transformed

@dataclass(frozen=True)
class Shift(Defense):
    """Adds what it learned, which is nothing."""
    name: ClassVar[str] = "shift"
    title: ClassVar[str] = "Shift"
    kind = "trained"
    def learn(self, model, training, rng):
        return {"shift": training.load(torch.arange(4)).mean(0) * 0}
    def protect(self, model, learned):
        return Transformed(model, lambda images, rng: images + learned["shift"])
'''


@walled
def test_what_a_defense_learned_is_part_of_its_bundle_and_cannot_be_swapped(tmp_path: Path) -> None:
    (tmp_path / "shift.py").write_text(LEARNER)
    path = tmp_path / "shift.zip"
    assert submit(tmp_path / "shift.py", path, benchmark="tiny", compute=compute_here)
    assert verify(path, limits=QUICK).status == "verified"
    files = content(path)
    swapped = save({"shift": torch.full((3, 32, 32), 0.5)})
    verdict = verify(packed(path, files | {"learned/seed-0.safetensors": swapped}), limits=QUICK)
    assert (verdict.status, "defended_clean" in verdict.reason) == ("mismatch", True), verdict.reason
    del files["learned/seed-0.safetensors"]
    verdict = verify(packed(path, files), limits=QUICK)
    assert (verdict.status, "what the defense learned" in verdict.reason) == ("refused", True), verdict.reason
