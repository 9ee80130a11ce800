"""A submission as one file: a zip with code, what it learned, records and checksums; read without trust."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from safetensors import SafetensorError, deserialize

from bench.core.files import write_bytes
from bench.errors import InputError, RefusedError
from bench.plugins.source_code import fingerprint_of_text
from bench.plugins.specs import Spec
from bench.records.schema import Outcome
from bench.records.store import parse_outcome

BUNDLE_SCHEMA = 2
FILES, BYTES, TEXT_BYTES = 500, 2**28, 2**25
"""The most files of a bundle, the most bytes of all of them, unpacked, and of those that are JSON."""
NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_MANIFEST = "bundle.json"
_ALLOWED = re.compile(
    r"bundle\.json|code/[A-Za-z_][A-Za-z0-9_]{0,60}\.(py|safetensors)"
    r"|learned/seed-[0-9]{1,6}\.safetensors|records/[A-Za-z0-9-]{1,90}\.json"
)
_PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib", ".bin")


@checked(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """What a bundle says of itself; none of it is believed without a check.

    Attributes:
        defense: its text, as in cells.
        benchmark, digest: the name of the benchmark that it was computed for, and the digest of its file.
        author, link, description: for readers; a link begins with https://.
        files: name -> SHA-256 of every other file in it.
        schema: of the bundle.
    """

    defense: str
    benchmark: str
    digest: str
    author: str
    link: str
    description: str
    files: dict[str, str] = field(default_factory=dict)
    schema: int = BUNDLE_SCHEMA


@dataclass(frozen=True)
class Bundle:
    """The content of a bundle whose names, sizes and checksums are correct; nothing of it was run.

    Attributes:
        manifest: what it says of itself.
        code: file name -> content; one Python file, and weights that it reads from beside it.
        learned: seed -> what the defense learned, as safetensors.
        outcomes: its records.
    """

    manifest: Manifest
    code: Mapping[str, bytes]
    learned: Mapping[int, bytes]
    outcomes: list[Outcome]

    @property
    def name(self) -> str:
        """The defense's name without parameters."""
        return Spec.parse(self.manifest.defense).name

    @property
    def plugin(self) -> str:
        """The name of the Python file."""
        return next(name for name in self.code if name.endswith(".py"))

    @property
    def fingerprint(self) -> str:
        """The code fingerprint of the plugin, found without importing it."""
        return fingerprint_of_text(self.code[self.plugin], self.code)

    @property
    def checksum(self) -> str:
        """Of the code, the weights beside it and everything that was learned."""
        return checksum_of(self.manifest.files)


def checksum_of(files: Mapping[str, str]) -> str:
    """One checksum of those of a bundle's files, without its records."""
    computed_with = {name: checksum for name, checksum in files.items() if not name.startswith("records/")}
    return hashlib.sha256(json.dumps(computed_with, sort_keys=True).encode()).hexdigest()[:16]


def pack(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Writes a bundle; the manifest's checksums are made here. The same content gives the same bytes."""
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    content_list = json.dumps(asdict(manifest) | {"files": sums}, indent=1, ensure_ascii=False).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [(_MANIFEST, content_list), *files.items()]:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    write_bytes(path, buffer.getvalue())


def unpack(path: Path) -> Bundle:
    """Reads a bundle into memory and runs nothing of it.

    Raises:
        RefusedError: it is not a bundle, holds what it must not, or differs from its checksums.
    """
    files = _files(path)
    manifest: Manifest = _checked(Manifest, lambda: json.loads(files.pop(_MANIFEST)), _MANIFEST)
    if manifest.schema != BUNDLE_SCHEMA:
        raise RefusedError(f"the bundle has schema {manifest.schema}; this version reads schema {BUNDLE_SCHEMA}")
    if set(files) != set(manifest.files):
        named = ", ".join(sorted(set(files) ^ set(manifest.files))[:3])
        raise RefusedError(f"the files in the bundle are not those with a checksum: {named}")
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != manifest.files[name]:
            raise RefusedError(f"{name} differs from its checksum")
    _check(manifest)
    code = {name.removeprefix("code/"): content for name, content in files.items() if name.startswith("code/")}
    if sum(name.endswith(".py") for name in code) != 1:
        raise RefusedError(f"expected one Python file in code/, but got {sorted(code)}")
    for name, content in files.items():
        if name.endswith(".safetensors"):
            check_tensors(name, content)
    learned = {
        int(name.removeprefix("learned/seed-").removesuffix(".safetensors")): content
        for name, content in files.items()
        if name.startswith("learned/")
    }
    outcomes = [_record(name, content) for name, content in sorted(files.items()) if name.startswith("records/")]
    return Bundle(manifest, code, learned, outcomes)


def _files(path: Path) -> dict[str, bytes]:
    """The files of a zip, by names that are allowed."""
    if not path.is_file():
        raise RefusedError(f"{path} does not exist or is not a file")
    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for entry in entries:
                _check_entry(entry)
            texts = [entry.file_size for entry in entries if entry.filename.endswith(".json")]
            if len(entries) > FILES or sum(entry.file_size for entry in entries) > BYTES or sum(texts) > TEXT_BYTES:
                raise RefusedError(f"the bundle has more than {FILES} files, {BYTES} bytes or {TEXT_BYTES} of JSON")
            if len({entry.filename for entry in entries}) != len(entries):
                raise RefusedError("the bundle has two files of one name")
            files = {entry.filename: archive.read(entry) for entry in entries}
    except RefusedError:
        raise
    except Exception as error:  # zipfile raises what its parts raise: zlib.error, struct.error, OverflowError, …
        raise RefusedError(f"{path.name} is not a whole zip file: {error}") from error
    if _MANIFEST not in files:
        raise RefusedError(f"the bundle has no {_MANIFEST}")
    return files


def _check_directory(path: Path) -> None:
    """Refuses a zip whose list of files alone would fill the memory, before anything reads it."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, io.SEEK_END) - 2**16 - 22))
        tail = file.read()
    mark = b"PK\5\6"
    end = len(tail) - 22 if tail[-22:-18] == mark and tail[-2:] == b"\0\0" else tail.rfind(mark)  # as zipfile finds it
    length = int.from_bytes(tail[end + 12 : end + 16], "little") if end >= 0 else 0
    if length > 200 * FILES or tail[max(0, end - 20) : max(0, end - 16)] == b"PK\6\7":  # a zip beyond 4 GiB
        raise RefusedError(f"the bundle has more than {FILES} files, or is of a kind for more than 4 GiB")


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if name.lower().endswith(_PICKLES):
        raise RefusedError(f"the bundle holds {name!r}: weights come as safetensors, never as a pickle")
    if not _ALLOWED.fullmatch(name):
        raise RefusedError(f"the bundle holds {name!r}, which has no place in one")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        raise RefusedError(f"{name} is a link or not a plain file")
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedError(f"{name} is encrypted, or compressed in an unusual way")


def _check(manifest: Manifest) -> None:
    """Whether the manifest's texts are such as may be shown."""
    try:
        names = [spec.name for spec in Spec.parse_chain(manifest.defense)]
    except InputError:
        names = []
    if len(names) != 1 or not NAME.fullmatch(names[0]) or not manifest.defense.isprintable():
        raise RefusedError(f"expected a name of small letters, digits and hyphens, but got {manifest.defense!r}")
    if manifest.link and not re.fullmatch(r"https://[!-~]{3,300}", manifest.link):
        raise RefusedError(f"expected a link that begins with https://, but got {manifest.link!r}")
    for key, limit in (("defense", 200), ("author", 100), ("description", 1000)):
        value = getattr(manifest, key)
        if len(value) > limit or not value.isprintable():
            raise RefusedError(f"expected at most {limit} printable characters as {key}")


def check_tensors(name: str, content: bytes) -> None:
    """Raises RefusedError unless this is a safetensors file."""
    if content[:1] == b"\x80" or content[:2] == b"PK":
        raise RefusedError(f"{name} is a pickle, not safetensors")
    try:
        deserialize(content)  # type: ignore[no-untyped-call]  # safetensors has no types here
    except (SafetensorError, ValueError) as error:
        raise RefusedError(f"{name} is not a safetensors file: {error}") from error


def _record(name: str, content: bytes) -> Outcome:
    try:
        outcome = parse_outcome(content, name)
    except InputError as error:
        raise RefusedError(str(error)) from error
    if name != f"records/{outcome.cell.slug}.json":
        raise RefusedError(f"{name} is the record of another cell: {outcome.cell}")
    return outcome


def _checked(kind: Any, read: Callable[[], Any], name: str) -> Any:
    try:
        tree = read()
        json.dumps(tree, allow_nan=False, ensure_ascii=False).encode()  # finite numbers, and text that can be written
        return TypeAdapter(kind).validate_python(tree)
    except (ValidationError, ValueError, RecursionError) as error:
        raise RefusedError(f"{name} is not what it should be: {str(error).splitlines()[0]}") from error
