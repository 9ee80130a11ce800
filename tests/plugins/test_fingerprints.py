"""Fingerprints: what they must see, what they must not see, and files that belong to a plugin."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from PIL import Image

from bench.contracts import Images, InputError, Streams, Transform
from bench.plugins import registry, source_code
from bench.plugins.chain import Chain
from bench.plugins.fingerprints import code_fingerprint, plugin_fingerprints, plugin_key
from bench.plugins.registry import Kind, addresses, make_attack, make_defense
from bench.plugins.source_code import fingerprint_of, fingerprint_of_text, source_of
from bench.plugins.specs import Spec

PLUGIN = '''
from dataclasses import dataclass
from typing import ClassVar
from bench.contracts import Images, Streams, Transform
@dataclass(frozen=True)
class Shade(Transform):
    """Shades."""
    name: ClassVar[str] = "shade"
    title: ClassVar[str] = "Shade"
    def clean(self, images: Images, rng: Streams) -> Images:
        return images
'''


@pytest.fixture(autouse=True)
def _no_plugins_from_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_from_files", {})


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str, str], None]:
    """Lets a module of this package be read as if a text in it were another."""

    def change(module: str, text: str, other: str) -> None:
        source = source_of(module)
        assert source is not None
        assert text in source.read_text()
        copy = tmp_path / source.name
        copy.write_text(source.read_text().replace(text, other))
        monkeypatch.setattr(source_code, "source_of", lambda name: copy if name == module else source_of(name))

    return change


@pytest.mark.parametrize(
    ("module", "text", "other"),
    [
        ("bench.training", "loss: Loss = cross_entropy", "loss: Loss = F.mse_loss"),
        ("bench.training", "batch_size: int = 128", "batch_size: int = 64"),
        ("bench.augment", "shift: int = 2", "shift: int = 3"),
        ("bench.core.one_cycle", "highest / 25", "highest / 24"),
        ("bench.core.streams", "0x9E3779B97F4A7C15", "0x9E3779B97F4A7C16"),
        ("bench.defenses._training", "epochs: int = 6", "epochs: int = 7"),
    ],
)
def test_a_change_in_what_a_training_runs_is_seen(
    changed: Callable[[str, str, str], None], module: str, text: str, other: str
) -> None:
    defense = make_defense("retrained")
    before = code_fingerprint(defense)
    changed(module, text, other)
    assert code_fingerprint(defense) != before


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ('"""Trains `network` in place', '"""TRAINS `network` in place'),
        ("    optimiser = torch", "    # A comment.\n\n    optimiser   =   torch"),
        ("COLLAPSED = 0.5\n", 'COLLAPSED = (\n    0.5\n)\n"""Another text."""\n'),
    ],
)
def test_comments_docstrings_and_layout_are_not_seen(
    changed: Callable[[str, str, str], None], text: str, other: str
) -> None:
    before = fingerprint_of(["bench.training"])
    changed("bench.training", text, other)
    assert fingerprint_of(["bench.training"]) == before


def test_engine_and_report_are_not_seen(changed: Callable[[str, str, str], None]) -> None:
    before = code_fingerprint(make_attack("patch"))
    changed("bench.models.zoo", "import", "import os\nimport")
    assert code_fingerprint(make_attack("patch")) == before


@pytest.mark.parametrize("kind", ["attack", "defense"])
def test_no_plugin_changes_when_its_code_is_laid_out_anew(kind: Kind) -> None:
    for module in {Spec.parse_address(address)[0] for address in addresses(kind).values()}:
        source = source_of(module)
        assert source is not None
        text = source.read_bytes()
        anew = b"# Another layout.\n" + ast.unparse(ast.parse(text)).encode()
        assert fingerprint_of_text(text, {}) == fingerprint_of_text(anew, {})
        assert fingerprint_of_text(text, {}) != fingerprint_of_text(text + b"\nNEW = 1\n", {})


def test_a_fingerprint_is_the_same_for_every_version_of_python() -> None:
    text = b'''"""Text."""
import os.path as p, sys
from . import near
async def f(a, /, b: int = 1_0, *c, d=.5, **e) -> "x":
    """Text."""
    global g
    async with a as b, c: yield f"{a!r:>{b}} {c=}" "d" rf"\\n"
    return [*a, *(b for b in c if b async for b in d)], {**e, "k": u"v"}, lambda x: x[1:, ..., -1j]
@f
class G(object, metaclass=type): x: int; y: str = b"\\xff"
try:
    match a:
        case {"k": [1, *_], **r} | None if (n := 3) > 2 or not n: raise X from None
        case _: del a.b, a[0]; assert a, "b"
except* (A, B) as e: pass
else:
    while not x < 1 <= 2 is not None: break
'''
    assert fingerprint_of_text(text, {}) == "15042f40ef4d"


class TestHelpers:
    """Modules beside a plugin, imported in any way."""

    @pytest.fixture(autouse=True)
    def _modules(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(sys, "modules", dict(sys.modules))
        (tmp_path / "h1_helper.py").write_text("def shade(x): return x\n")
        (tmp_path / "h1_pack" / "sub").mkdir(parents=True)
        (tmp_path / "h1_pack" / "__init__.py").write_text("SIDE = 1\n")
        (tmp_path / "h1_pack" / "sub" / "deep.py").write_text("from ..near import shade\n")
        (tmp_path / "h1_pack" / "near.py").write_text("def shade(x): return x\n")

    def fingerprint(self, folder: Path, imports: str) -> str:
        (folder / "shade.py").write_text(f"{PLUGIN}        {imports}\n")
        registry.add_file(folder / "shade.py")
        return code_fingerprint(make_defense("shade"))

    @pytest.mark.parametrize(
        ("imports", "file"),
        [
            ("from h1_helper import shade", "h1_helper.py"),
            ("import h1_helper", "h1_helper.py"),
            ("import h1_pack.sub.deep as d", "h1_pack/sub/deep.py"),
            ("import h1_pack.sub.deep as d", "h1_pack/near.py"),
            ("from h1_pack.sub import deep", "h1_pack/near.py"),
            ("from h1_pack import near", "h1_pack/near.py"),
            ("from h1_pack.near import shade", "h1_pack/__init__.py"),
            ("import importlib; importlib.import_module('h1_helper')", "h1_helper.py"),
        ],
    )
    def test_a_change_in_a_helper_is_seen(self, tmp_path: Path, imports: str, file: str) -> None:
        before = self.fingerprint(tmp_path, imports)
        helper = tmp_path / file
        helper.write_text("# A comment.\n" + helper.read_text())
        assert self.fingerprint(tmp_path, imports) == before
        helper.write_text(helper.read_text() + "CHANGED = 1\n")
        assert self.fingerprint(tmp_path, imports) != before

    def test_another_helper_of_the_same_content_is_another_import(self, tmp_path: Path) -> None:
        both = "import h1_helper, h1_pack.near; "
        first, second = (f"{both}from {name} import shade" for name in ("h1_helper", "h1_pack.near"))
        assert self.fingerprint(tmp_path, first) != self.fingerprint(tmp_path, second)

    @pytest.mark.parametrize("name", ["shade.safetensors", "weights/shade.pt"])
    def test_a_file_beside_the_plugin_that_it_names_is_seen(self, tmp_path: Path, name: str) -> None:
        weights = tmp_path / name
        weights.parent.mkdir(exist_ok=True)
        code = "return Path(__file__).parent / " + " / ".join(map(repr, weights.relative_to(tmp_path).parts))
        before = self.fingerprint(tmp_path, code)
        weights.write_bytes(b"1")
        first = self.fingerprint(tmp_path, code)
        weights.write_bytes(b"2")
        assert len({before, first, self.fingerprint(tmp_path, code)}) == 3

    def test_a_bundle_has_the_fingerprint_of_the_files_that_are_packed(self, tmp_path: Path) -> None:
        (tmp_path / "shade.safetensors").write_bytes(b"2")
        installed = self.fingerprint(tmp_path, 'return Path(__file__).with_name("shade.safetensors")')
        packed = {"shade.py": (tmp_path / "shade.py").read_bytes(), "shade.safetensors": b"2", "other.pt": b"3"}
        assert fingerprint_of_text(packed["shade.py"], packed) == installed

    def test_what_is_installed_with_a_plugin_is_seen_and_libraries_are_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = tmp_path / "site-packages"
        monkeypatch.syspath_prepend(str(site))
        for distribution, modules in {"h1-acme": ("h1_acme", "h1_acme_helper"), "h1-library": ("h1_library",)}.items():
            info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
            (info / "top_level.txt").write_text("\n".join(modules))
        (site / "h1_acme").mkdir()
        (site / "h1_acme" / "__init__.py").write_text("import h1_acme_helper, h1_library\nfrom . import own\n")
        for name in ("h1_acme/own", "h1_acme_helper", "h1_library"):
            (site / f"{name}.py").write_text("VALUE = 1\n")
        before = fingerprint_of(["h1_acme"])
        for name, seen in (("h1_library", False), ("h1_acme_helper", True), ("h1_acme/own", True)):
            (site / f"{name}.py").write_text("VALUE = 2\n")
            after = fingerprint_of(["h1_acme"])
            assert (after != before) is seen, name
            before = after


@dataclass(frozen=True)
class Reading(Transform):
    """Reads files."""

    title: ClassVar[str] = "Reading"
    file: Path | None = None
    text: str = ""

    def clean(self, images: Images, rng: Streams) -> Images:
        """The images."""
        return images


class TestFiles:
    """Files that parameters name."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "w.png"
        Image.new("RGB", (2, 2), "red").save(path)
        return path

    @pytest.mark.parametrize(
        "make",
        [
            lambda file: Reading(file=file),
            lambda file: Reading(text=str(file)),
            lambda file: Chain((Reading(), Reading(text=str(file)))),
            lambda file: make_attack(f"patch:image={file}"),
            lambda file: make_attack(f"patch:disguise={file}"),
            lambda file: make_attack(f"patch:models=victim;resnet20@{file}"),
            lambda file: make_attack(f"patch:models=resnet20@{file};photos-cnn"),
            lambda file: make_attack(f"tnt:generator={file}"),
            lambda file: make_attack(f"greedyfool:generator={file},distortion=generator"),
            lambda file: make_defense(f"smoothed-vit:weights={file}"),
        ],
    )
    def test_another_content_is_another_key_and_makes_records_stale(
        self, make: Callable[[Path], Any], file: Path
    ) -> None:
        plugin = make(file)
        assert plugin.files() == (file,)
        keys, records = [], []
        for colour in ("red", "blue"):
            Image.new("RGB", (2, 2), colour).save(file)
            keys.append(plugin_key(plugin))
            records.append(plugin_fingerprints("defense", plugin))
        assert keys[0] != keys[1]
        assert records[0]["defense"] == records[1]["defense"] == code_fingerprint(plugin)
        assert records[0]["files of the defense"] != records[1]["files of the defense"]

    def test_the_code_of_a_python_model_to_learn_on_is_seen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(tmp_path))
        attack = make_attack("patch:models=victim;python:h1_nets:make")
        records = []
        for sign in (1, -1):
            (tmp_path / "h1_nets.py").write_text(f"SIGN = {sign}\n")
            records.append(plugin_fingerprints("attack", attack)["files of the attack"])
        assert records[0] != records[1]

    def test_weights_that_ship_with_a_defense_are_seen(self) -> None:
        assert [file.name for file in make_defense("psd").files()] == ["psd-denoiser.safetensors"]
        assert make_defense("psd:denoiser=trained").files() == ()

    def test_a_folder_counts_with_all_that_lies_below(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "b.txt").write_text("1")
        before = plugin_key(Reading(tmp_path))
        (tmp_path / "a" / "b.txt").write_text("2")
        assert plugin_key(Reading(tmp_path)) != before

    def test_a_file_that_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"gone\.pt"):
            plugin_key(Reading(tmp_path / "gone.pt"))

    @pytest.mark.parametrize("text", ["", "no file", "x" * 5000, "null \0"])
    def test_any_other_text_names_no_file(self, text: str) -> None:
        assert Reading(text=text).files() == ()

    def test_without_files_a_record_keeps_the_code_alone(self) -> None:
        assert plugin_fingerprints("attack", make_attack("fgsm")).keys() == {"attack"}

    def test_parameters_are_part_of_the_key_and_not_of_the_fingerprint(self) -> None:
        plain, other = make_defense("jpeg+median"), make_defense("jpeg:quality=31+median")
        assert plugin_key(plain) != plugin_key(other)
        assert code_fingerprint(plain) == code_fingerprint(other)
