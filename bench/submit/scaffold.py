"""Starts a new defense: a file that works, its test, and a stub for author and link."""

from __future__ import annotations

import sys
from keyword import iskeyword
from pathlib import Path

from bench.core.files import write_text
from bench.errors import InputError
from bench.plugins.registry import addresses
from bench.submit.bundle import NAME

_TEMPLATES = Path(__file__).parent.parent / "templates"
_FILES = {"{}.py": "defense.py.txt", "test_{}.py": "test.py.txt", "{}.toml": "about.toml.txt"}


def new(name: str, folder: Path) -> list[Path]:
    """Writes `NAME.py` with a defense that changes nothing, `test_NAME.py` and `NAME.toml`; returns their paths.

    Args:
        name: small letters, digits and hyphens, such as my-blur; the files are then named my_blur.
        folder: of the files.

    Raises:
        InputError: the name is invalid or taken, or a file exists already.
    """
    if not NAME.fullmatch(name) or name.endswith("-"):
        raise InputError(f"Expected a name of small letters, digits and hyphens, such as my-blur, but got {name!r}.")
    if name in addresses("defense"):
        raise InputError(f"A defense is named {name!r} already ({addresses('defense')[name]}). Choose another name.")
    module = name.replace("-", "_")
    if iskeyword(module) or module in {"bench", "torch", "numpy", *sys.stdlib_module_names}:
        raise InputError(f"Expected a name that no Python module has, but got {name!r}.")
    made = {folder / pattern.format(module): template for pattern, template in _FILES.items()}
    existing = [str(path) for path in made if path.exists()]
    if existing:
        raise InputError(f"Expected new files, but {', '.join(existing)} exists. Nothing was written.")
    words = {
        "@NAME@": name,
        "@FILE@": module,
        "@TITLE@": name.replace("-", " ").capitalize(),
        "@CLASS@": "".join(part.capitalize() for part in name.split("-")),
    }
    for path, template in made.items():
        text = (_TEMPLATES / template).read_text(encoding="utf-8")
        for mark, word in words.items():
            text = text.replace(mark, word)
        write_text(path, text)
    return list(made)
