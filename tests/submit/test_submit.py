"""A defense's way onto the board."""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.errors import InputError
from bench.plugins import registry
from bench.report.frame import load_results
from bench.sandbox.isolation import IsolationError, shut_in
from bench.sandbox.process import Box
from bench.submit.accept import accept
from bench.submit.agreement import compare_other_images
from bench.submit.bundle import unpack
from bench.submit.consistency import contradiction
from bench.submit.scaffold import new
from bench.submit.submit import submit
from bench.submit.verdict_text import verdict_lines, verdict_markdown
from bench.submit.verify import Verdict, sample, verify

from .forging import PLUGIN, compute_here, content, manifest, packed, walled


@walled
def test_an_honest_bundle_verifies_and_comes_onto_the_board(bundle: Path, tmp_path: Path) -> None:
    steps: list[str] = []
    verdict = verify(bundle, share=0.01, seed=3, progress=steps.append)
    assert verdict.status == "verified", verdict.reason
    assert verdict.reason == "2 of 2 cells computed again"
    assert any("other images" in step for step in steps)
    assert all(compared.gap.value == 0 for compared in verdict.compared if not compared.other_images)
    assert verdict_lines(verdict)[0].startswith("verified")
    assert "| fgsm | adaptive | same | defended_attacked |" in verdict_markdown(verdict).replace("\\", "")
    results = tmp_path / "results"
    written = accept(verdict, results)
    assert results / "README.md" in written
    assert (results / "submissions" / "acme-blur" / "code" / "acme_blur.py").is_file()
    assert set(load_results(results)["defense"]) == {"acme-blur"}
    for outcome in unpack(bundle).outcomes:
        record = written_record(results, outcome.cell.tier)
        assert record["facts"] == json.loads(content(bundle)[f"records/{outcome.cell.slug}.json"])["facts"]
        assert record["fingerprints"] == outcome.fingerprints
        assert (record["seconds"], record["training"]) == ({}, {})
        assert record["provenance"]["submission"] == "tiny by unnamed"
    accept(verdict, results)  # the same code again is no conflict
    assert "acme-blur" in (results / "README.md").read_text()


def written_record(results: Path, tier: str) -> Any:
    (path,) = results.rglob(f"fgsm-*{tier}*.json")
    return json.loads(path.read_text())


def test_a_share_of_nothing_is_refused(bundle: Path) -> None:
    for share in (0, -1, 1.5, float("nan")):
        with pytest.raises(InputError, match="above 0 and up to 1"):
            verify(bundle, share=share)


def test_the_same_submission_gives_the_same_bundle_and_computes_nothing_twice(bundle: Path) -> None:
    before = bundle.read_bytes()
    assert submit(PLUGIN, bundle, benchmark="tiny", compute=compute_here)
    assert bundle.read_bytes() == before


def test_a_new_defense_works_as_it_is_written(tmp_path: Path) -> None:
    made = new("my-idea", tmp_path)
    assert [path.name for path in made] == ["my_idea.py", "test_my_idea.py", "my_idea.toml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(made[1])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with pytest.raises(InputError, match="Nothing was written"):
        new("my-idea", tmp_path)


@pytest.mark.parametrize(
    "name", ["../escape", "/etc/x", "a/b", "", "Ümlaut", "x y", "-a", "a-", "import", "lgs", "a\nb"]
)
def test_a_new_defense_is_never_a_path_nor_a_name_that_is_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        new(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_metadata_are_read_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "acme_blur.py"
    file.write_bytes(PLUGIN.read_bytes())
    about = file.with_suffix(".toml")
    about.write_text('author = "A <b>"\nlink = "https://example.org"\n')
    assert submit(file, tmp_path / "out.zip", benchmark="tiny", compute=compute_here)
    read = unpack(tmp_path / "out.zip").manifest
    assert (read.author, read.link, read.description) == ("A <b>", "https://example.org", "")
    about.write_text('autor = "A"\n')
    registry._from_files.clear()
    with pytest.raises(InputError, match="author, link, description"):
        submit(file, tmp_path / "out.zip", benchmark="tiny", compute=compute_here)


def test_records_of_an_honest_run_do_not_contradict_each_other(bundle: Path) -> None:
    assert contradiction(unpack(bundle).outcomes) is None


def test_a_sample_has_every_attack_and_tier_and_at_least_its_share(bundle: Path) -> None:
    outcomes = [
        replace(outcome, cell=replace(outcome.cell, attack=attack, seed=seed))
        for outcome in unpack(bundle).outcomes
        for attack in ("fgsm", "pgd")
        for seed in range(8)
    ]
    for share, count in ((0.01, 4), (0.25, 8), (0.26, 12), (1, 32)):
        chosen = sample(outcomes, share, random.Random(0))
        assert len({outcome.cell for outcome in chosen}) == len(chosen) == count
        assert len({(outcome.cell.attack, outcome.cell.tier) for outcome in chosen}) == 4


def test_a_defense_that_knows_the_evaluated_images_by_heart_shows_on_other_images(bundle: Path) -> None:
    record = unpack(bundle).outcomes[0]
    assert record.facts is not None
    lists = {name: [1.0] * 200 for name in ("bare_clean", "bare_attacked", "defended_attacked_8bit", "reached")}
    lists |= {"defended_clean": [1.0] * 200, "defended_attacked": [1.0] * 200}
    many = replace(record.facts, index=list(range(200)), label=[0] * 200, eligible=[1] * 200, noted={}, **lists)
    others = replace(many, index=list(range(200, 400)), defended_attacked=[1.0, 0.0] * 100)
    clean, attacked = compare_other_images(record.cell, many, others)
    assert clean.right
    assert not attacked.right
    slightly = replace(others, defended_attacked=[1.0] * 190 + [0.0] * 10)
    assert all(compared.right for compared in compare_other_images(record.cell, many, slightly))


def test_a_machine_without_walls_runs_nothing(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def start(box: Box, *given: Any) -> Any:
        raise IsolationError("the kernel has no Landlock")

    monkeypatch.setattr(Box, "__init__", start)
    verdict = verify(bundle)
    assert (verdict.status, verdict.reason) == ("unverified", "the kernel has no Landlock")
    with pytest.raises(InputError, match="unverified"):
        accept(verdict, tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: "z80")
    with pytest.raises(IsolationError, match="z80"):
        shut_in([], [], 1, 1)


def test_a_name_that_is_taken_is_not_accepted(bundle: Path, tmp_path: Path) -> None:
    honest = Verdict("verified", "", (), unpack(bundle), unpack(bundle).outcomes)
    accept(honest, tmp_path)
    other = unpack(packed(tmp_path / "b.zip", content(bundle) | {"learned/seed-0.safetensors": EMPTY}))
    with pytest.raises(InputError, match="--replace"):
        accept(replace(honest, bundle=other), tmp_path)
    accept(replace(honest, bundle=other), tmp_path, replace_other=True)
    taken = unpack(packed(tmp_path / "b.zip", manifest(content(bundle), defense="lgs")))
    with pytest.raises(InputError, match="Another defense is named 'lgs'"):
        accept(replace(honest, bundle=taken), tmp_path)


EMPTY = b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "
"""A safetensors file without a tensor."""
