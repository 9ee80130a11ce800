from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from bench.errors import InputError
from bench.plugins import registry
from bench.plugins.registry import make_attack, make_defense
from bench.plugins.source_code import code_fingerprint, fingerprint_of_text
from bench.plugins.specs import Spec, canonical, parse_value, split_specs

PLUGIN = Path(__file__).parent.parent / "plugin" / "acme_blur.py"


@pytest.mark.parametrize(
    ("text", "canonical_text"),
    [
        ("lgs", "lgs"),
        ("patch:steps=3,area=0.1", "patch:area=0.1,steps=3"),
        ("patch:uva,area=0.1", "patch:uva,area=0.1"),
        ("folder:../a b/c,resize=256", "folder:../a b/c,resize=256"),
        ("lgs:window=3,overlap=1+median", "lgs:overlap=1,window=3+median"),
    ],
)
def test_a_text_reads_and_prints_in_one_canonical_form(text: str, canonical_text: str) -> None:
    assert canonical(text) == canonical_text
    assert canonical(canonical_text) == canonical_text


def test_commas_part_specs_but_not_their_parameters() -> None:
    assert split_specs("fgsm,patch:area=0.1,steps=9,none") == ["fgsm", "patch:area=0.1,steps=9", "none"]
    assert split_specs("a,b:x,c=1,d") == ["a", "b:x,c=1", "d"]


@pytest.mark.parametrize("text", ["", ":x", "lgs:=3", "lgs:a,b", "lgs:a=1,a=2"])
def test_a_text_without_meaning_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Spec.parse(text)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("8/255", float, 8 / 255),
        ("3", int, 3),
        ("0.5:1", tuple[float, float], (0.5, 1.0)),
        ("none", int | None, None),
        ("true", bool, True),
        ("a", Literal["a", "b"], "a"),
    ],
)
def test_values_are_read_as_their_annotation_says(text: str, kind: object, value: object) -> None:
    assert parse_value(text, kind) == value


@pytest.mark.parametrize(
    ("text", "kind"),
    [("x", float), ("1/0", float), ("1.5", int), ("c", Literal["a", "b"]), ("1", tuple[float, float])],
)
def test_a_value_that_does_not_fit_is_refused_with_what_was_expected(text: str, kind: object) -> None:
    with pytest.raises(InputError, match=r"Expected .* but got"):
        parse_value(text, kind)


def test_an_unknown_name_brings_the_nearest_one() -> None:
    with pytest.raises(InputError, match="Did you mean 'fgsm'"):
        make_attack("fgms")
    with pytest.raises(InputError, match=r"parameter of the attack 'fgsm' named 'epz'\. Did you mean 'eps'"):
        make_attack("fgsm:epz=1")
    with pytest.raises(InputError, match="preset"):
        make_attack("fgsm:nothing")
    with pytest.raises(InputError, match="refuses its parameters"):
        make_attack("fgsm:eps=-1")


def test_a_file_brings_its_plugins_under_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_from_files", {})
    assert registry.add_file(PLUGIN) == ["acme-blur"]
    assert make_defense("acme-blur:size=5") == registry.load_plugin("defense", "acme-blur")(size=5)


def test_a_name_that_exists_twice_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_from_files", {})
    copy = tmp_path / "again.py"
    copy.write_text(PLUGIN.read_text().replace('"acme-blur"', '"lgs"'))
    with pytest.raises(InputError, match=r"Two defenses are named 'lgs': bench\.defenses\.lgs:LGS and"):
        registry.add_file(copy)


@pytest.mark.parametrize("text", ["import nothing_of_this_name", "x = 1", "def f(:"])
def test_a_file_that_is_no_plugin_says_why(text: str, tmp_path: Path) -> None:
    path = tmp_path / "plugin.py"
    path.write_text(text)
    with pytest.raises(InputError, match=r"plugin\.py"):
        registry.add_file(path)


def test_installed_packages_come_through_entry_points_and_broken_ones_break_no_list(tmp_path: Path) -> None:
    for name, source in (("acme_blur", PLUGIN.read_text()), ("wrecked", "raise RuntimeError('wrecked')")):
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[bench.defenses]\n{name.replace('_', '-')} = {name}:Blur\n")
    code = (
        "from bench.cli.listing import text; print(text('defenses'));"
        "from bench.plugins.registry import make_defense; print(make_defense('acme-blur'));"
        "make_defense('wrecked')"
    )
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert "acme-blur" in done.stdout
    assert "Replaces each pixel" in done.stdout
    assert "Blur(size=3)" in done.stdout
    assert "cannot be imported: RuntimeError: wrecked" in done.stderr


def test_a_changed_file_changes_its_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_from_files", {})
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN.read_text())
    registry.add_file(path)
    before = code_fingerprint(make_defense("acme-blur"))
    path.write_text(PLUGIN.read_text() + "\nCHANGED = True\n")
    assert code_fingerprint(make_defense("acme-blur")) != before


def test_other_words_in_a_docstring_leave_a_fingerprint_as_it_is() -> None:
    code = b'class Blur:\n    """Blurs."""\n\n    size = 3\n'
    assert fingerprint_of_text(code) == fingerprint_of_text(code.replace(b'"""Blurs."""', b'"""Blurs\n\n    much."""'))
    assert fingerprint_of_text(code) != fingerprint_of_text(code.replace(b"3", b"5"))
    beside = b'def blur(): """Blurs."""; return 3\n'
    assert fingerprint_of_text(beside) != fingerprint_of_text(beside.replace(b"3", b"5"))
