"""What records call files and folders: a name and a hash, and never a place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.core.identity import former_identities, identity_of, without_folders, without_hashes

HASH = "1a2b3c4d" * 8


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/me/best.pt", "best.pt@1a2b3c4d"),
        ("cats, dogs=2;x+y@z:w", "cats-dogs-2-x-y-z-w@1a2b3c4d"),
        ("/", "root@1a2b3c4d"),
        (os.fsdecode(b"/data/d\xff"), "d\ufffd@1a2b3c4d"),
    ],
)
def test_an_identity_is_a_name_that_texts_can_hold_and_a_hash(path: str, expected: str) -> None:
    assert identity_of(Path(path), HASH) == expected


def test_the_current_folder_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cats").mkdir()
    monkeypatch.chdir(tmp_path / "cats")
    assert identity_of(Path(), HASH) == "cats@1a2b3c4d"
    assert identity_of(Path(), HASH, name="pets") == "pets@1a2b3c4d"


def test_hashes_can_be_left_out_of_a_text() -> None:
    text = "folder:cats@1a2b3c4d,train=dogs@00000000;victim@x.pt@ffffffff+resize=8"
    assert without_hashes(text) == "folder:cats,train=dogs;victim@x.pt+resize=8"
    assert without_hashes("a@1a2b3c4d5,b@1a2b3c4,c@nothex00") == "a@1a2b3c4d5,b@1a2b3c4,c@nothex00"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No such file: '/home/me/my pictures/a.png'", "No such file: 'a.png'"),
        ("see /home/me/x/y.py:3 (/tmp/z.py)", "see y.py:3 (z.py)"),
        (r"see C:\Users\me\y.py, ~/secret/x", "see y.py, x"),
        (
            "https://example.org/a/b 8/255 and/or forwards/backwards",
            "https://example.org/a/b 8/255 and/or forwards/backwards",
        ),
        ("broken \udcff", "broken ?"),
    ],
)
def test_a_message_keeps_the_last_name_of_a_path(text: str, expected: str) -> None:
    assert without_folders(text) == expected


def test_former_identities_are_those_of_this_very_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    here, there = tmp_path / "x" / "d", tmp_path / "y" / "d"
    assert former_identities(here, "d@00000001") == ()
    assert former_identities(there, "d@00000002") == ()
    assert former_identities(here, "d@00000003") == ("d@00000001",)
    assert former_identities(here, "d@00000001") == ("d@00000003",)
    assert former_identities(here, "other@00000001") == ()
    for file in (tmp_path / "cache" / "identities").iterdir():
        file.write_bytes(b"\xff\x00")
    assert former_identities(here, "d@00000001") == ()
