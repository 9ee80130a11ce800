from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import InputError
from bench.plugins import registry
from bench.plugins.registry import make_attack, make_defense

PLUGIN = Path(__file__).parent.parent / "plugin" / "acme_blur.py"


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
        "from bench.cli.listing import overview; print(overview('defenses'));"
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
