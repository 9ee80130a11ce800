"""Progress where there is no terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from bench.cli.progress import progress_lines


def test_a_line_now_and_then_says_what_is_done_and_what_is_left() -> None:
    text, now = StringIO(), [0.0]
    report = progress_lines(4, Console(file=text, width=60), pause=30, clock=lambda: now[0])
    for seconds, task, share in ((10, "a", 0.5), (20, "a", 1.0), (40, "b", 0.5), (60, "b", 1.0), (80, "c", 0.0)):
        now[0] = float(seconds)
        report(task, share, "crafting")  # type: ignore[arg-type]  # any key does
    lines = text.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("1 of 4 done (38 %), ")
    assert lines[0].endswith("left; b: crafting")
    assert lines[1].startswith("2 of 4 done (50 %), ")
