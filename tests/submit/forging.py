"""What a forger does to a bundle."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bench.engine.engines import Local
from bench.engine.matrix import compute
from bench.engine.plan import Plan
from bench.plugins.source_code import fingerprint_of_text
from bench.records.sealed import seal
from bench.records.store import Store
from bench.sandbox.isolation import lacking
from bench.sandbox.process import Limits

PLUGIN = Path(__file__).parent.parent / "plugin" / "acme_blur.py"
QUICK = Limits(answer=300, memory=2**30)
walled = pytest.mark.skipif(bool(lacking()), reason=f"this machine cannot isolate untrusted code: {lacking()}")
Files = dict[str, bytes]
Record = dict[str, Any]


def compute_here(planned: Plan, store: Store, plugins: list[Path]) -> int:
    """Computes a plan in this process."""
    done = list(compute(planned, store, plugins, Local(0), None, lambda task, share, doing: None))
    return int(any(one.record.status != "ok" for one in done))


def content(path: Path) -> Files:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, files: Mapping[str, bytes], sums: bool = True) -> Path:
    """A bundle of these files, by default with correct checksums, as a forger would make it."""
    files = dict(files)
    manifest = json.loads(files.pop("bundle.json"))
    if sums:
        manifest["files"] = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {"bundle.json": json.dumps(manifest).encode(), **files}.items():
            archive.writestr(name, content)
    return path


def manifest(files: Files, /, **values: Any) -> Files:
    """The files with other words in the manifest."""
    return files | {"bundle.json": json.dumps(json.loads(files["bundle.json"]) | values).encode()}


def records(files: Files, change: Callable[[Record], None]) -> Files:
    """The files with changed records, whose checksums are correct again."""
    changed = {}
    for name in files:
        if name.startswith("records/"):
            record = json.loads(files[name])
            record.pop("checksum")
            change(record)
            changed[name] = json.dumps(seal(record)).encode()
    return files | changed


def code(files: Files, text: str) -> Files:
    """The files with other code, which the records claim to be of."""
    source = text.encode()

    def claim(record: Record) -> None:
        record["fingerprints"]["defense"] = fingerprint_of_text(source, {})

    return records(files, claim) | {"code/acme_blur.py": source}


def inside(line: str, before: str = "") -> str:
    """The example's code, which also does this whenever it cleans images."""
    text = PLUGIN.read_text().replace("        half = self.size", f"        {line}\n        half = self.size")
    return text.replace("from torch.nn import", f"import torch\n{before}\nfrom torch.nn import")
