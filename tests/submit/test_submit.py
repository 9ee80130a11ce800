"""A defense's way onto the board, and everything that must not come that way."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import platform
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save, save_file

from bench.cli import progress
from bench.contracts import CertifiedDefense, Patch, Streams
from bench.engine.plan import Plan
from bench.engine.run import run_cell
from bench.engine.testbed import testbed_of
from bench.errors import InputError, RefusedError
from bench.plugins import registry
from bench.plugins.registry import add_file, make_defense
from bench.plugins.source_code import fingerprint_of_text
from bench.records.frame import load_results
from bench.records.metrics import attacked_accuracy
from bench.records.schema import Cell
from bench.records.store import Store
from bench.sandbox.client import Remote, remote_defense
from bench.sandbox.isolation import IsolationError, lacking, shut_in
from bench.sandbox.process import Box, Limits
from bench.submit import protocol as protocols
from bench.submit.accept import accept
from bench.submit.agreement import compare_fresh
from bench.submit.bundle import unpack
from bench.submit.consistency import contradiction
from bench.submit.import_attack import import_attack
from bench.submit.scaffold import new
from bench.submit.submit import submit
from bench.submit.verdict_text import lines, markdown
from bench.submit.verify import Verdict, sample, verify

PLUGIN = Path(__file__).parent.parent / "plugin" / "acme_blur.py"
QUICK = Limits(start=100, answer=12, memory=2**30)
walled = pytest.mark.skipif(bool(lacking()), reason=f"this machine cannot shut untrusted code in: {lacking()}")


def here(planned: Plan, store: Store, plugins: list[Path]) -> int:
    """Computes a plan in this process."""
    return progress.run(planned, store, plugins, 0, None)


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_from_files", {})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest bundle of the example package."""
    before, registry._from_files = registry._from_files, {}
    out = tmp_path_factory.mktemp("honest") / "acme-blur.zip"
    assert submit(PLUGIN, out, protocol="smoke", compute=here)
    registry._from_files = before
    testbed_of.cache_clear()
    return out


def content(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: Mapping[str, bytes], sums: bool = True) -> Path:
    """A bundle of these files, by default with the right checksums, as a forger would make it."""
    files = dict(files)
    manifest = json.loads(files.pop("bundle.json"))
    if sums:
        manifest["files"] = {name: hashlib.sha256(one).hexdigest() for name, one in files.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, one in {"bundle.json": json.dumps(manifest).encode(), **files}.items():
            archive.writestr(name, one)
    return path


def forged(path: Path, bundle: Path, change: Callable[[str, dict[str, Any]], None], code: bytes | None = None) -> Path:
    """A bundle whose records were changed by hand, and whose code may be another one that they claim to be of."""
    files = content(bundle)
    if code is not None:
        files["code/acme_blur.py"] = code
    for name in files:
        if name.startswith("records/"):
            record = json.loads(files[name])
            if code is not None:
                record["fingerprints"]["defense"] = fingerprint_of_text(code)
            change(name, record)
            files[name] = json.dumps(record).encode()
    return packed(path, files)


def unchanged(name: str, record: dict[str, Any]) -> None:
    """Leaves a record as it is."""


# The honest way


@walled
def test_an_honest_bundle_verifies_and_comes_onto_the_board(bundle: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    verdict = verify(bundle, share=0.5, seed=3, told=steps.append)
    assert verdict.status == "verified", verdict.reason
    assert any("other images" in one for one in steps)
    assert {one.cell.tier for one in verdict.compared} == {"oblivious", "adaptive"}
    assert all(one.gap.value == 0 for one in verdict.compared if not one.fresh)
    assert lines(verdict)[0].startswith("verified")
    assert "| fgsm | adaptive | same | defended_attacked |" in markdown(verdict).replace("\\", "")
    written = accept(verdict, tmp_path / "results")
    assert tmp_path / "results" / "site" / "index.html" in written
    assert (tmp_path / "results" / "submissions" / "acme-blur" / "code" / "acme_blur.py").is_file()
    frame = load_results(tmp_path / "results")
    assert set(frame["defense"]) == {"acme-blur"}
    assert len(frame) == 4
    accept(verdict, tmp_path / "results")  # the same code again is no conflict
    assert "acme-blur" in (tmp_path / "results" / "README.md").read_text()


def test_the_same_submission_gives_the_same_records_and_computes_nothing_twice(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(bundle)
    assert submit(PLUGIN, bundle, protocol="smoke", compute=here)
    after = content(bundle)
    assert {name: one for name, one in after.items() if name != "bundle.json"} == {
        name: one for name, one in before.items() if name != "bundle.json"
    }
    assert re.search(r"(\d+) of \1 cells were computed before", capsys.readouterr().err)


def test_a_new_defense_works_as_it_is_written(tmp_path: Path) -> None:
    made = new("my-idea", tmp_path)
    assert [path.name for path in made] == ["my_idea.py", "test_my_idea.py", "my_idea.toml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(made[1])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(InputError, match="Nothing was written"):
        new("my-idea", tmp_path)


@pytest.mark.parametrize(
    "name", ["../escape", "/etc/x", "a/b", "", "Ümlaut", "x y", "-a", "a-", "import", "lgs", "a\nb"]
)
def test_a_new_defense_is_never_a_path_nor_a_name_that_is_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        new(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_metadata_are_read_and_unknown_ones_are_refused(tmp_path: Path, bundle: Path) -> None:
    file = tmp_path / "acme_blur.py"
    file.write_bytes(PLUGIN.read_bytes())
    about = file.with_suffix(".toml")
    about.write_text('author = "A <b>"\nlink = "https://example.org"\n')
    assert submit(file, tmp_path / "out.zip", protocol="smoke", compute=here)
    manifest = unpack(tmp_path / "out.zip").manifest
    assert (manifest.author, manifest.link, manifest.description) == ("A <b>", "https://example.org", "")
    about.write_text('autor = "A"\n')
    registry._from_files.clear()
    with pytest.raises(InputError, match="author, link, description"):
        submit(file, tmp_path / "out.zip", protocol="smoke", compute=here)


def test_the_standard_protocol_has_a_fixed_content() -> None:
    standard = protocols.load("v1")
    assert len(standard.cells("x")) == len(standard.attacks) * 2
    assert {one.images for one in standard.cells("x")} == {200}
    with pytest.raises(InputError, match="Did you mean 'smoke'"):
        protocols.load("smok")


# Records that are not true


def raised(name: str, record: dict[str, Any]) -> None:
    """Every attacked image is survived, and the other facts are bent to fit."""
    if record["cell"]["attack"] == "fgsm":
        facts = record["facts"]
        facts["defended_attacked"] = facts["defended_attacked_8bit"] = list(facts["defended_clean"])
        facts["reached"] = [0 for _ in facts["reached"]]


@walled
def test_a_record_that_was_raised_by_hand_is_found_by_computing_it_again(bundle: Path, tmp_path: Path) -> None:
    verdict = verify(forged(tmp_path / "b.zip", bundle, raised), limits=QUICK)
    assert verdict.status == "mismatch"
    assert "defended_attacked of fgsm" in verdict.reason
    assert "WRONG" in "\n".join(lines(verdict))
    with pytest.raises(InputError, match="mismatch"):
        accept(verdict, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def only_accuracy(name: str, record: dict[str, Any]) -> None:
    record["facts"]["defended_attacked"] = [1 for _ in record["facts"]["reached"]]


def one_clean(name: str, record: dict[str, Any]) -> None:
    if record["cell"]["tier"] == "adaptive":
        first, *others = record["facts"]["defended_clean"]
        record["facts"]["defended_clean"] = "".join(["10"[int(first)], *others])


def beyond(name: str, record: dict[str, Any]) -> None:
    record["facts"]["defended_clean"] = [7, *map(int, record["facts"]["defended_clean"][1:])]


def short(name: str, record: dict[str, Any]) -> None:
    record["facts"]["bare_clean"] = record["facts"]["bare_clean"][:-1]


def other_label(name: str, record: dict[str, Any]) -> None:
    record["facts"]["label"][0] += 1


def other_budget(name: str, record: dict[str, Any]) -> None:
    record["attack"]["traits"]["budget"] = "L∞ ≤ 16/255"


def other_code(name: str, record: dict[str, Any]) -> None:
    record["fingerprints"]["defense"] = "0" * 12


def other_data(name: str, record: dict[str, Any]) -> None:
    record["fingerprints"]["data"] = "0" * 12


def without_facts(name: str, record: dict[str, Any]) -> None:
    record["facts"] = None


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        (only_accuracy, "mismatch", "the goal is reached"),
        (one_clean, "mismatch", "defended_clean"),
        (beyond, "mismatch", "outside 0 to 1"),
        (short, "mismatch", "bare_clean has 11 values for 12 images"),
        (other_label, "mismatch", "other images or labels"),
        (other_budget, "mismatch", "describes its attack"),
        (other_code, "mismatch", "another code"),
        (other_data, "unverified", "another data"),
        (without_facts, "mismatch", "no facts"),
    ],
)
def test_records_that_cannot_be_are_found_without_running_any_code(
    change: Callable[[str, dict[str, Any]], None], status: str, reason: str, bundle: Path, tmp_path: Path
) -> None:
    verdict = verify(forged(tmp_path / "b.zip", bundle, change))
    assert verdict.status == status
    assert reason in verdict.reason


def test_records_of_an_honest_run_do_not_contradict_each_other(bundle: Path) -> None:
    assert contradiction(unpack(bundle).outcomes) is None


def test_a_sample_has_every_tier_and_access(bundle: Path) -> None:
    outcomes = unpack(bundle).outcomes
    strata = {(one.cell.tier, one.cell.attack) for one in sample(outcomes, 0.01, random.Random(0))}
    assert strata == {(tier, attack) for tier in ("oblivious", "adaptive") for attack in ("fgsm", "occlusion")}


def test_a_defense_that_knows_the_evaluated_images_by_heart_shows_on_other_images(bundle: Path) -> None:
    record = unpack(bundle).outcomes[0]
    assert record.facts is not None
    many = replace(record.facts, index=list(range(200)), defended_clean=[1.0] * 200, defended_attacked=[1.0] * 200)
    other = replace(many, index=list(range(200, 400)), defended_attacked=[1.0, 0.0] * 100)
    clean, attacked = compare_fresh(replace(record, facts=many), other)
    assert clean.right
    assert not attacked.right
    slightly = replace(other, defended_attacked=[1.0] * 190 + [0.0] * 10)
    assert all(one.right for one in compare_fresh(replace(record, facts=many), slightly))


# Bundles that are none


def test_code_that_differs_from_its_checksum_is_refused(bundle: Path, tmp_path: Path) -> None:
    files = content(bundle)
    files["code/acme_blur.py"] += b"\n# one more line\n"
    verdict = verify(packed(tmp_path / "b.zip", files, sums=False))
    assert (verdict.status, verdict.reason) == ("refused", "code/acme_blur.py differs from its checksum")


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("unpickled",))


@pytest.mark.parametrize(
    ("name", "one", "reason"),
    [
        ("code/weights.pt", pickle.dumps(Evil()), "never as a pickle"),
        ("code/weights.safetensors", pickle.dumps(Evil()), "is a pickle"),
        ("learned/seed-0.safetensors", b"PK\x03\x04", "is a pickle"),
        ("learned/seed-0.safetensors", b"nonsense", "no safetensors file"),
        ("../../outside.py", b"", "no place"),
        ("/etc/passwd", b"", "no place"),
        ("code/../../x.py", b"", "no place"),
        ("code/sitecustomize/x.py", b"", "no place"),
        ("C:\\x.py", b"", "no place"),
        ("code/second.py", b"", "one Python file"),
        ("records/other.json", b"{}", "not what it should be"),
        ("records/deep.json", b"[" * 100_000, "not what it should be"),
    ],
)
def test_what_has_no_place_in_a_bundle_is_refused(
    name: str, one: bytes, reason: str, bundle: Path, tmp_path: Path
) -> None:
    verdict = verify(packed(tmp_path / "b.zip", content(bundle) | {name: one}))
    assert verdict.status == "refused"
    assert reason in verdict.reason


def test_links_double_names_bombs_and_broken_files_are_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = zipfile.ZipInfo("code/link.py")
    link.external_attr = 0o120777 << 16
    path = tmp_path / "b.zip"
    path.write_bytes(bundle.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, b"/etc/passwd")
    with pytest.raises(RefusedError, match="is a link"):
        unpack(path)
    path.write_bytes(bundle.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("bundle.json", b"{}")
    with pytest.raises(RefusedError, match="two files of one name"):
        unpack(path)
    monkeypatch.setattr("bench.submit.bundle.BYTES", 1000)
    with pytest.raises(RefusedError, match="more than"):
        unpack(bundle)
    (tmp_path / "cut.zip").write_bytes(bundle.read_bytes()[:-50])
    for path in (tmp_path / "cut.zip", PLUGIN, tmp_path / "absent.zip"):
        assert verify(path).status == "refused"


@pytest.mark.parametrize(
    ("key", "value"),
    [("defense", "../x"), ("defense", "<script>"), ("link", "javascript:alert(1)"), ("author", "a\nb"), ("schema", 9)],
)
def test_a_manifest_cannot_say_anything(key: str, value: Any, bundle: Path, tmp_path: Path) -> None:
    files = content(bundle)
    files["bundle.json"] = json.dumps(json.loads(files["bundle.json"]) | {key: value}).encode()
    assert verify(packed(tmp_path / "b.zip", files)).status == "refused"


def test_a_lacking_cell_and_another_protocol_do_not_pass(bundle: Path, tmp_path: Path) -> None:
    files = content(bundle)
    less = {name: one for name, one in files.items() if "records/occlusion" not in name}
    assert "not those of the protocol" in verify(packed(tmp_path / "b.zip", less)).reason
    files["bundle.json"] = json.dumps(json.loads(files["bundle.json"]) | {"digest": "0" * 12}).encode()
    assert verify(packed(tmp_path / "b.zip", files)).status == "unverified"


# Code that does what it must not

EVIL = {
    "socket": ("import socket; socket.create_connection(('127.0.0.1', 9))", "opened a socket"),
    "read": (f"open({str(PLUGIN)!r}).read()", "looked outside its folder"),
    "fork": ("import os\n        while True:\n            os.fork()", "started or signalled a process"),
    "sleep": ("import time; time.sleep(3600)", "no answer within 12 seconds"),
    "labels": (
        "from bench.data.load import load_dataset; load_dataset('photos').test.load(torch.tensor([0]))",
        "looked for the labels",
    ),
    "memory": ("torch.zeros(2**31)", "memory"),
}


@walled
@pytest.mark.parametrize("name", EVIL)
def test_code_that_does_what_it_must_not_is_refused_with_the_reason(name: str, bundle: Path, tmp_path: Path) -> None:
    line, reason = EVIL[name]
    code = PLUGIN.read_text().replace("        half = self.size // 2", f"        {line}\n        half = 1")
    code = code.replace("from torch.nn import", "import torch\nfrom torch.nn import")
    verdict = verify(forged(tmp_path / "b.zip", bundle, unchanged, code.encode()), limits=QUICK)
    assert verdict.status == "refused", verdict.reason
    assert reason in verdict.reason


AROUND = """
import ctypes, os
import torch
libc = ctypes.CDLL(None, use_errno=True)
FOUND = {
    "socket": libc.socket(2, 1, 0),
    "fork": libc.fork(),
    "exec": libc.execve(b"/bin/true", None, None),
    "kill": libc.kill(os.getppid(), 0),
    "open": libc.open(b"@OUTSIDE@", 0),
    "write": libc.open(b"@PLUGIN@", 1),
    "ptrace": libc.ptrace(16, os.getppid(), 0, 0),
    "shared memory": libc.shmget(77, 4096, 0o1666),
}
if any(value >= 0 for value in FOUND.values()):
    raise RuntimeError(f"through: {FOUND}")
"""


@walled
def test_the_kernel_holds_code_that_goes_around_python(tmp_path: Path) -> None:
    around = AROUND.replace("@OUTSIDE@", str(PLUGIN)).replace("@PLUGIN@", registry.__file__)
    with Box({"acme_blur.py": PLUGIN.read_bytes() + around.encode()}, QUICK) as box:
        request = {"do": "protect", "defense": "acme-blur", "model": "photos-cnn", "shape": [3, 32, 32], "classes": 10}
        assert box.ask(request)[0]["defense"]["title"] == "Acme blur"
        assert {"limits", "Landlock", "seccomp"} <= set(box.walls)


RANDOM = '''
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from safetensors.torch import load_file
from bench.contracts import Transform

@dataclass(frozen=True)
class Noise(Transform):
    """Adds noise."""
    name: ClassVar[str] = "noise"
    title: ClassVar[str] = "noise"
    random: ClassVar[bool] = True
    def clean(self, images, rng):
        size = load_file(Path(__file__).with_name("size.safetensors"))["size"]
        return (images + size * rng.normal(*images.shape[1:])).clamp(0, 1)
'''


@walled
def test_a_defense_behind_walls_answers_as_it_would_in_the_open() -> None:
    images, streams = (
        torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        Streams.of(0, torch.arange(9)),
    )
    testbed = testbed_of(protocols.load("smoke").setting(0))
    about = {"model": "photos-cnn", "shape": (3, 32, 32), "classes": 10, "learned": {}, "code": "x"}
    with Box({"acme_blur.py": PLUGIN.read_bytes()}, QUICK) as box:
        remote = remote_defense(box, box, text="acme-blur:size=5", **about)  # type: ignore[arg-type]  # one dict for two calls
        add_file(PLUGIN)
        here = make_defense("acme-blur:size=5").protect(testbed.bare, {})
        there = remote.attacker_views(testbed.bare, {})["exact"]
        torch.testing.assert_close(there(images, streams), here(images, streams), rtol=0, atol=1e-5)
        gradients = []
        for model in (here, there):
            leaf = images.clone().requires_grad_()
            gradients.append(torch.autograd.grad(model(leaf, streams).square().sum(), leaf)[0])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    size = save({"size": torch.tensor(0.5)})
    with Box({"noise.py": RANDOM.encode(), "size.safetensors": size}, QUICK) as box:
        remote = remote_defense(box, box, text="noise", **about)  # type: ignore[arg-type]  # as above
        noisy = remote.protect(testbed.bare, {})
        assert noisy.random
        first = noisy(images, streams)
        torch.testing.assert_close(noisy(images[3:], streams[3:]), first[3:], rtol=0, atol=1e-5)
        assert not torch.allclose(noisy(images, streams.derive("again")), first, atol=0.1)


MASKS = """
from dataclasses import dataclass
from typing import ClassVar
from bench.defenses.patchcleanser import PatchCleanser

@dataclass(frozen=True)
class Masks(PatchCleanser):
    name: ClassVar[str] = "masks"
"""


@walled
def test_a_certificate_behind_walls_is_the_one_in_the_open() -> None:
    testbed, budget = testbed_of(protocols.load("smoke").setting(0)), Patch(0.01, turned=False)
    defense = make_defense("patchcleanser")
    assert isinstance(defense, CertifiedDefense)
    here = defense.certify(testbed.bare, {}, testbed.images, testbed.labels, budget)
    about = {"model": "photos-cnn", "shape": (3, 32, 32), "classes": 10, "learned": {}, "code": "x"}
    with Box({"masks.py": MASKS.encode()}, QUICK) as box:
        remote = remote_defense(box, box, text="masks", **about)  # type: ignore[arg-type]  # as above
        assert isinstance(remote, CertifiedDefense)
        there = remote.certify(testbed.bare, {}, testbed.images, testbed.labels, budget)
        wrong = remote.certify(testbed.bare, {}, testbed.images, (testbed.labels + 1) % 10, budget)
    assert here.any()
    assert torch.equal(there, here)
    assert not wrong[here].any()


@walled
def test_a_certificate_that_an_attack_breaks_is_refused(bundle: Path, tmp_path: Path) -> None:
    code = PLUGIN.read_text().replace("Streams, Transform", "CertifiedDefense, Streams, Transform")
    code = code.replace("class Blur(Transform)", "class Blur(Transform, CertifiedDefense)")
    code += "\n    def certify(self, model, learned, images, labels, budget):\n        return labels >= 0\n"
    verdict = verify(forged(tmp_path / "b.zip", bundle, unchanged, code.encode()), share=1.0)
    assert verdict.status == "refused", verdict.reason
    assert "the certificate is broken" in verdict.reason


class FakeBox:
    """Remembers what it is asked; answers with the means of the images."""

    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.asked: list[dict[str, torch.Tensor]] = []
        self.answer = answer

    def ask(self, message: dict[str, Any], tensors: dict[str, torch.Tensor]) -> tuple[dict[str, Any], Any]:
        self.asked.append(tensors)
        return {}, {"logits": self.answer(tensors["images"])}


def means(images: torch.Tensor) -> torch.Tensor:
    return images.mean((2, 3))


def test_neither_the_order_of_the_rows_nor_the_streams_tell_which_image_it_is() -> None:
    images, streams = torch.rand(50, 3, 4, 4), Streams.of(0, torch.arange(50))
    for chance in (False, True):
        box = FakeBox(means)
        model = Remote(box, "", {"rejects": False, "random": chance, "passes": 1}, 3)  # type: ignore[arg-type]  # a stand-in
        torch.testing.assert_close(model(images, streams), means(images))
        (asked,) = box.asked
        assert not torch.equal(asked["images"], images)
        assert torch.equal(asked["images"].sum((1, 2, 3)).sort().values, images.sum((1, 2, 3)).sort().values)
        keys = asked["keys"].tolist()
        assert len(set(keys)) == (50 if chance else 1)
        assert not set(keys) & set(streams._keys.tolist())


@pytest.mark.parametrize(
    "answer",
    [
        lambda images: images,
        lambda images: means(images) * torch.nan,
        lambda images: means(images)[:1],
        lambda x: x.int(),
    ],
)
def test_answers_that_are_none_are_refused(answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = Remote(FakeBox(answer), "", {"rejects": False, "random": False, "passes": 1}, 3)  # type: ignore[arg-type]  # a stand-in
    with pytest.raises(RefusedError):
        model(torch.rand(2, 3, 4, 4), Streams.of(0, torch.arange(2)))


def test_a_machine_without_walls_runs_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def ask(box: Box, *given: Any) -> Any:
        raise IsolationError("the kernel has no Landlock")

    monkeypatch.setattr(Box, "ask", ask)
    verdict = verify(bundle)
    assert (verdict.status, verdict.reason) == ("unverified", "the kernel has no Landlock")
    with pytest.raises(InputError, match="unverified"):
        accept(verdict, tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: "z80")
    with pytest.raises(IsolationError, match="z80"):
        shut_in(tmp_path, [], [], 1)


def test_a_name_that_is_taken_is_not_accepted(bundle: Path, tmp_path: Path) -> None:
    honest = Verdict("verified", "", (), unpack(bundle))
    accept(honest, tmp_path)
    other = unpack(packed(tmp_path / "b.zip", content(bundle) | {"code/acme_blur.py": PLUGIN.read_bytes() + b"#\n"}))
    with pytest.raises(InputError, match="--replace"):
        accept(replace(honest, bundle=other), tmp_path)
    accept(replace(honest, bundle=other), tmp_path, replace_other=True)
    taken = replace(other, manifest=replace(other.manifest, defense="lgs"))
    with pytest.raises(InputError, match="already"):
        accept(replace(honest, bundle=taken), tmp_path)


# Breaking a defense


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A board with one row and one attack that hardly does anything."""
    folder = tmp_path_factory.mktemp("board")
    cell = Cell("photos", "photos-cnn", "fgsm:eps=8/255", "none", "adaptive", effort="quick", images=12)
    Store(folder).save(run_cell(cell, SETTING, lambda share, doing: None).outcome)
    return folder


SETTING = protocols.load("smoke").setting(0)


def attack_file(path: Path, eps: float, rows: slice = slice(None), **more: torch.Tensor) -> Path:
    testbed = testbed_of(SETTING)
    leaf = testbed.images.clone().requires_grad_()
    for _ in range(10):
        loss = testbed.goal.cross_entropy(testbed.bare(leaf, testbed.streams)).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        moved = leaf.detach() - 0.3 * eps * gradient.sign()
        leaf = moved.clamp(testbed.images - eps, testbed.images + eps).clamp(0, 1).requires_grad_()
    save_file(
        {"adversarial": leaf.detach()[rows].contiguous(), "index": testbed.indices[rows].contiguous()} | more, path
    )
    return path


def imported(file: Path, board: Path, author: str = "A. <b>Breaker</b>", name: str = "breaker") -> Any:
    return import_attack(file, name, author, "none", "fgsm:eps=8/255", SETTING, board, "quick", "adaptive")


def test_adversarial_images_from_anyone_lower_the_row_and_both_values_stay_visible(board: Path, tmp_path: Path) -> None:
    result = imported(attack_file(tmp_path / "a.safetensors", 8 / 255), board)
    assert result.after < result.before
    record = Store(board).find("attack=imported:breaker")
    assert record.facts is not None
    told = attacked_accuracy(record.facts)
    assert told is not None
    assert result.after <= told.value < result.before
    assert record.attack is not None
    assert record.attack.parameters["author"] == "A. <b>Breaker</b>"
    assert len(record.attack.parameters["date"]) == 10
    page, table = (board / "site" / "index.html").read_text(), (board / "README.md").read_text()
    for text in (page, table):
        assert f"{100 * result.before:.1f}" in text
        assert f"{100 * result.after:.1f}" in text
        assert "<b>Breaker" not in text
        assert "Breaker" in text
    again = imported(tmp_path / "a.safetensors", board)  # its own record is no part of what was there before
    assert (again.before, again.after) == (result.before, result.after)


@walled
def test_a_submitted_defense_is_broken_behind_walls(bundle: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    accept(verify(bundle, share=0.01), results)
    file = attack_file(tmp_path / "a.safetensors", 8 / 255)

    def broken(defense: str, path: Path | None) -> Any:
        return import_attack(file, "x", "A", defense, "fgsm:eps=8/255", SETTING, results, "quick", "adaptive", path)

    result = broken("acme-blur", bundle)
    assert result.after < result.before
    assert Store(results).find("attack=imported:x").cell.defense == "acme-blur"
    with pytest.raises(InputError, match="none to lower"):
        broken("acme-blur:size=5", bundle)


def test_images_that_are_not_given_count_as_not_attacked(board: Path, tmp_path: Path) -> None:
    result = imported(attack_file(tmp_path / "a.safetensors", 8 / 255, slice(0, 2)), board, name="two")
    facts = result.outcome.facts
    assert len(facts.index) == 12
    assert facts.defended_attacked[2:] == facts.defended_clean[2:]
    assert result.outcome.attack.parameters["images"] == 2


def test_what_a_detector_rejects_anyway_is_not_caught(tmp_path: Path) -> None:
    defense = "squeeze:quick,bits=3,false_positive_rate=0.5,search=0"
    cell = Cell("photos", "photos-cnn", "fgsm:eps=8/255", defense, "adaptive", effort="quick", images=12)
    Store(tmp_path).save(run_cell(cell, SETTING, lambda share, doing: None).outcome)
    file = attack_file(tmp_path / "a.safetensors", 8 / 255)
    result = import_attack(file, "x", "A", defense, cell.attack, SETTING, tmp_path, "quick", "adaptive")
    facts = result.outcome.facts
    assert 0 < sum(facts.rejected_clean) < 12
    assert all(after <= before for before, after in zip(facts.defended_clean, facts.defended_attacked, strict=True))


def test_the_first_image_outside_the_budget_is_named(board: Path, tmp_path: Path) -> None:
    testbed = testbed_of(SETTING)
    images = testbed.images.clone()
    images[4:6, :, 0, 0] = 1 - images[4:6, :, 0, 0].round()
    save_file({"adversarial": images, "index": testbed.indices}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=rf"Image {int(testbed.indices[4])} is outside the budget.*and 1 more"):
        imported(tmp_path / "a.safetensors", board, name="broken")
    images[3, 0, 0, 0] = torch.nan
    save_file({"adversarial": images, "index": testbed.indices}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=rf"Image {int(testbed.indices[3])} holds a value that is no number"):
        imported(tmp_path / "a.safetensors", board, name="broken")
    assert not list(board.rglob("*broken*.json"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"index": torch.arange(12) + 10**6}, "image \\[1000000\\]"),
        ({"index": torch.zeros(12, dtype=torch.int64)}, "once"),
        ({"adversarial": torch.zeros(12, 3, 8, 8)}, "shape"),
        ({"adversarial": torch.zeros(12, 3, 32, 32, dtype=torch.float64)}, "float32"),
        ({"label": torch.zeros(12)}, "named adversarial and index"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    more: dict[str, torch.Tensor], told: str, board: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told):
        imported(attack_file(tmp_path / "a.safetensors", 0.01, **more), board)


def test_a_row_that_is_not_there_and_bad_names_are_refused(board: Path, tmp_path: Path) -> None:
    file = attack_file(tmp_path / "a.safetensors", 0.01)
    with pytest.raises(InputError, match="none to lower"):
        import_attack(file, "x", "A", "lgs", "fgsm:eps=8/255", SETTING, board, "quick")
    with pytest.raises(InputError, match="small letters"):
        imported(file, board, name="../x")
    with pytest.raises(InputError, match="author"):
        imported(file, board, author=" ")
    pickled = tmp_path / "p.safetensors"
    pickled.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(InputError, match="pickle"):
        imported(pickled, board)
    with pytest.raises(InputError, match="none to lower"):
        import_attack(file, "x", "A", "none", "occlusion", SETTING, board, "quick")
