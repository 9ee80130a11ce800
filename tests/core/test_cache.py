"""The cache and the checkpoints: made once, and never damaged without a word."""

from __future__ import annotations

import os
import platform
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from bench.contracts import InputError
from bench.core import files, tensor_cache
from bench.core.checkpoints import Checkpoint
from bench.core.files import content_hash, write_bytes
from bench.core.tensor_cache import cached, checksum

TENSORS = {"right": torch.tensor([True, False, True]), "x": torch.linspace(0, 1, 7), "n": torch.tensor(3)}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def made() -> list[str]:
    """A word for each time that `from_cache` makes tensors."""
    return []


@pytest.fixture
def from_cache(cache: Path, made: list[str]) -> Callable[[], dict[str, Tensor]]:
    def make() -> dict[str, Tensor]:
        made.append("made")
        return TENSORS

    return lambda: cached("things", {"a": "1"}, make)


def damaged(content: bytes) -> Iterator[bytes]:
    """60 truncations and 150 files with one flipped bit."""
    draw = random.Random(0)
    for _ in range(60):
        yield content[: draw.randrange(len(content))]
    for _ in range(150):
        place = draw.randrange(len(content))
        yield content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def same(tensors: dict[str, Tensor] | None) -> bool:
    return tensors is not None and checksum(dict(sorted(tensors.items()))) == checksum(dict(sorted(TENSORS.items())))


def test_tensors_are_made_once_for_the_same_inputs(
    from_cache: Callable[[], dict[str, Tensor]], made: list[str]
) -> None:
    assert same(from_cache())
    assert same(from_cache())
    assert made == ["made"]
    cached("things", {"a": "2"}, lambda: made.append("other") or {"x": torch.zeros(1)})  # type: ignore[func-returns-value]  # for short
    assert made == ["made", "other"]


def test_no_damage_of_a_cached_file_changes_a_tensor(
    from_cache: Callable[[], dict[str, Tensor]], made: list[str], cache: Path
) -> None:
    from_cache()
    (file,) = cache.glob("*.safetensors")
    for content in damaged(file.read_bytes()):
        file.write_bytes(content)
        assert same(from_cache())
    assert len(made) > 200, "damage went unnoticed"


def test_a_damaged_file_is_written_anew(
    from_cache: Callable[[], dict[str, Tensor]], made: list[str], cache: Path
) -> None:
    from_cache()
    (file,) = cache.glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    from_cache()
    assert file.read_bytes() == whole


def test_no_damage_of_a_checkpoint_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "state.pt"
    checkpoint = Checkpoint(path)
    checkpoint.save(TENSORS)
    assert same(checkpoint.load())
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        assert checkpoint.load() is None
        assert not content[32:] or not path.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("I/O error: no space")])
def test_a_full_disk_is_a_warning_and_the_result_is_there(
    from_cache: Callable[[], dict[str, Tensor]], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(tensor_cache, "save_file", full)
    with pytest.warns(UserWarning, match=r"cannot be written.*(N|n)o space"):
        assert same(from_cache())


def test_a_checkpoint_that_cannot_be_written_is_lost_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.tempfile, "mkstemp", full)
    checkpoint = Checkpoint(tmp_path / "state.pt")
    checkpoint.save(TENSORS)
    assert checkpoint.load() is None


def keep(*names: str) -> None:
    for name in names:
        cached(name, {"n": name}, lambda: {"x": torch.zeros(250)})


def kinds(cache: Path) -> set[str]:
    return {path.name.partition("-")[0] for path in cache.glob("*.safetensors")}


def grow_old(cache: Path) -> None:
    """Makes all files a day older than any job."""
    for number, path in enumerate(sorted(cache.glob("*.safetensors"))):
        os.utime(path, (1e9 + number, 1e9 + number))


def test_the_cache_deletes_what_was_not_used_for_longest(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("a", "b", "c")
    grow_old(cache)
    (cache / ".part-left").mkdir()
    (cache / ".part-left" / "tensors").write_bytes(bytes(5000))
    os.utime(cache / ".part-left" / "tensors", (1e8, 1e8))
    monkeypatch.setenv("BENCH_CACHE_LIMIT", str(3000 / 2**30))
    keep("d")
    assert kinds(cache) == {"c", "d"}
    assert not (cache / ".part-left" / "tensors").exists()


def test_what_was_trained_outlives_what_was_crafted_after_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep("learned")
    keep("crafted", "crafter")
    for path, used in ((next(cache.glob("learned-*")), 1), *((path, 2) for path in cache.glob("craft*"))):
        os.utime(path, (used, used))
    monkeypatch.setenv("BENCH_CACHE_LIMIT", str(3000 / 2**30))
    keep("new")
    assert kinds(cache) == {"learned", "new"}


def test_nothing_that_a_running_job_has_used_is_deleted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE_LIMIT", str(1 / 2**30))
    keep("a", "b", "c")
    assert kinds(cache) == {"a", "b", "c"}
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    grow_old(cache)
    (mark,) = (cache / "jobs").iterdir()
    mark.rename(mark.with_name(f"{platform.node()}-{int(ended.stdout)}"))  # the job has died: nobody needs its files
    (cache / "jobs" / f"another-machine-{os.getpid()}").write_text("0")  # but this one lives, for all we know
    keep("d")
    assert kinds(cache) == {"a", "b", "c", "d"}
    os.utime(cache / "jobs" / f"another-machine-{os.getpid()}", (0, 0))
    keep("e")
    assert kinds(cache) == {"d", "e"}


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan"])
def test_a_limit_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE_LIMIT", text)
    with pytest.raises(InputError, match="BENCH_CACHE_LIMIT"):
        tensor_cache.cache_limit()
    with pytest.raises(InputError, match="BENCH_CACHE_LIMIT"):
        cached("things", {"a": "1"}, lambda: pytest.fail("this is made in vain"))


def test_two_mappings_have_one_checksum_only_if_they_are_equal() -> None:
    others = [
        {"a": torch.zeros(2)},
        {"b": torch.zeros(2)},
        {"a": torch.zeros(2, dtype=torch.int32)},
        {"a": torch.zeros(2, 1)},
        {"a": torch.tensor([0, 1.0])},
        {"a": torch.zeros(0)},
        {},
    ]
    assert len({checksum(tensors) for tensors in others}) == len(others)
    assert checksum({"a": torch.ones(2, 3, dtype=torch.bfloat16).T}) == checksum({"a": torch.ones(3, 2).bfloat16()})


class TestContentHash:
    """Hashes of files, read again only where they changed."""

    def test_a_change_of_one_byte_is_seen_at_once(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        hashes = set()
        for number in range(50):
            path.write_bytes(bytes([number]))
            hashes.add(content_hash(path))
        assert len(hashes) == 50

    def test_a_file_that_did_not_change_is_read_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"1")
        monkeypatch.setattr(files.time, "time_ns", lambda: path.stat().st_mtime_ns + 10**10)
        before = content_hash(path)
        monkeypatch.setattr(Path, "open", None)
        assert content_hash(path) == before

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"gone.*No such file"):
            content_hash(tmp_path / "gone")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_bytes(path, b"old")
    with pytest.raises(TypeError):
        write_bytes(path, "no bytes")  # type: ignore[arg-type]  # what a full disk does, too: an error on writing
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
