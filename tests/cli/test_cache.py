"""`bench cache` as a user meets it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from bench.cli.main import main
from bench.core.tensor_cache import cached


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of a training and two crafted sets."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
    for kind, made_from in (("crafted", "a"), ("crafted", "b"), ("learned", "c")):
        cached(kind, {"from": made_from}, lambda: {"x": torch.ones(9)})
    return tmp_path


def bench_cache(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", "cache", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_cache_is_shown_by_kind_with_its_place_and_limit(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_CACHE_LIMIT", "2.5")
    assert bench_cache(monkeypatch) == 0
    words = capsys.readouterr().out.split()
    assert words[:3] == ["crafted", "2", "files"]
    assert "learned" in words
    assert {str(cache), "(limit", "2.50"} <= set(words)


def test_a_damaged_file_is_named_with_exit_code_1(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench_cache(monkeypatch, "check") == 0
    file = next(cache.glob("learned-*"))
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    assert bench_cache(monkeypatch, "check", "--kind", "crafted") == 0
    assert bench_cache(monkeypatch, "check") == 1
    assert f"damaged: {file}" in capsys.readouterr().err


def test_one_kind_or_everything_is_cleared(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bench_cache(monkeypatch, "clear", "--kind", "crafted") == 0
    assert [path.name.partition("-")[0] for path in cache.glob("*.safetensors")] == ["learned"]
    assert bench_cache(monkeypatch, "clear", "--kind", "crafted") == 2
    assert bench_cache(monkeypatch, "clear") == 0
    assert not list(cache.glob("*.safetensors"))
