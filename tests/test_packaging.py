"""What pyproject.toml says of the wheel is true of the folders."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
PLUGINS = {"bench.attacks": ROOT / "attacks", "bench.defenses": ROOT / "defenses"}


def packages() -> dict[str, Path]:
    """Every folder with Python files, by its name as a package."""
    folders = {path.parent for path in (ROOT / "bench").rglob("*.py")}
    own = {".".join(folder.relative_to(ROOT).parts): folder for folder in folders if folder.is_dir()}
    return {name: folder for name, folder in own.items() if name not in PLUGINS} | PLUGINS


def test_every_package_is_in_the_wheel() -> None:
    assert sorted(SETTINGS["packages"]) == sorted(packages())


def test_every_file_beside_the_code_is_in_the_wheel() -> None:
    data, folders = SETTINGS["package-data"], packages()
    covered = {path for name in data for pattern in data[name] for path in folders[name].glob(pattern)}
    beside = {
        path
        for folder in folders.values()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert beside <= covered
