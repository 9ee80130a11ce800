"""`bench cache`: what was crafted and trained, and is kept for the next run."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from bench.errors import InputError

_MEANING = {"crafted": "adversarial images", "learned": "what defenses learned", "part": "left by what was killed"}


def cache_command(
    what: Annotated[
        Literal["show", "check", "clear"], typer.Argument(help="show its size, check its files, or clear it.")
    ] = "show",
    kind: Annotated[str | None, typer.Option(help="Only files of this kind, such as crafted or learned.")] = None,
) -> None:
    """Show, check or clear the cache of adversarial images and trained defenses.

    Examples: `bench cache`, `bench cache check`, `bench cache clear --kind crafted`

    It is in the user's cache folder, or in BENCH_CACHE. BENCH_CACHE_LIMIT is its limit in GiB; beyond it the oldest
    files are deleted, trained defenses after all others, and never what a running job has used.
    """
    from bench.core.tensor_cache import cache_folder, cache_limit, cached_files

    files = cached_files()
    kinds = sorted({file.kind for file in files})
    if kind is not None:
        if kind not in kinds:
            raise InputError(f"Expected a kind of file that is in the cache ({', '.join(kinds)}), but got {kind!r}.")
        files = [file for file in files if file.kind == kind]
    damaged = [file.path for file in files if not file.intact] if what == "check" else []
    if what == "clear":
        for file in files:
            file.path.unlink(missing_ok=True)
    for name in kinds:
        sizes = [file.size for file in files if file.kind == name]
        typer.echo(f"{name:<10} {len(sizes):>6} files {_gib(sum(sizes)):>10}  {_MEANING.get(name, '')}".rstrip())
    for path in damaged:
        typer.echo(f"damaged: {path}; it will be made again", err=True)
    done = {"show": "", "check": f", {len(damaged)} damaged", "clear": ", deleted"}[what]
    limit = f"limit {_gib(cache_limit())}"
    typer.echo(f"{len(files)} files, {_gib(sum(file.size for file in files))}{done}, in {cache_folder()} ({limit})")
    sys.exit(1 if damaged else 0)


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
