"""The command line. What computes is imported only by the commands that compute."""

from __future__ import annotations

import codecs
import errno
import io
import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from bench.cli.cache import cache_command
from bench.cli.experiments import curve_command, run_command, show_command, train_command
from bench.cli.listing import list_command
from bench.cli.results import compare_command, export_command, report_command, tables_command
from bench.cli.submissions import (
    accept_command,
    check_command,
    import_attack_command,
    new_command,
    submit_command,
    verify_command,
)
from bench.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
COMMANDS: dict[str, Callable[..., None]] = {
    "run": run_command,
    "curve": curve_command,
    "train": train_command,
    "list": list_command,
    "show": show_command,
    "report": report_command,
    "tables": tables_command,
    "compare": compare_command,
    "export": export_command,
    "cache": cache_command,
    "check": check_command,
    "new": new_command,
    "submit": submit_command,
    "verify": verify_command,
    "accept": accept_command,
    "import-attack": import_attack_command,
}
_FIXABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_LOOK_ALIKES = {
    "δ": "d",
    "β": "b",
    "–": "-",
    "−": "-",
    "×": "x",
    "·": "-",
    "≤": "<=",
    "≥": ">=",
    "∞": "inf",
    "…": "...",
}


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(version("defense-bench"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Crosses attacks with defenses of image classifiers and says what each defense is worth."""


for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def main() -> None:
    """The console script: exit code 2 and one line for what the user can fix."""
    codecs.register_error("look-alike", _look_alike)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console of few characters, or a path that is not UTF-8
            stream.reconfigure(errors="look-alike")
    try:
        app()
    except InputError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        if error.errno not in _FIXABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        typer.echo(f"Error: {where}{error.strerror}. What was saved before is kept.", err=True)
        sys.exit(2)


def _look_alike(error: UnicodeError) -> tuple[str, int]:
    """What to print for characters that a console lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_LOOK_ALIKES.get(letter, "?") for letter in error.object[error.start : error.end]), error.end
