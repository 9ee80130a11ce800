"""Boards on a terminal: a line for each defense and attack, both attackers side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.core.text import plain
from bench.records.schema import TIERS, Latency, Outcome, Tier
from bench.report.board import WORST, Board, Row
from bench.report.boards import make_boards
from bench.report.format import NONE, Shown, lost

_MEASURES = ("attacked_accuracy", "delta", "beta")
_COLOURS = {"red": "red", "amber": "yellow"}


def print_boards(outcomes: Iterable[Outcome], latencies: Iterable[Latency], console: Console) -> None:
    """Prints the boards of these records."""
    boards, homeless = make_boards(outcomes, latencies)
    for board in boards:
        _print(board, console)
    for one in homeless:
        console.print(Text(lost(one), style="red"))


def _print(board: Board, console: Console) -> None:
    setting = board.setting
    console.print()
    console.print(Text(f"{plain(setting.dataset)} · {plain(setting.model)} · {board.budget}", style="bold"))
    console.print(Text(f"{board.conditions}; percent, with 95 % intervals", style="dim"))
    console.print(_table(board))
    for number, note in enumerate(board.footnotes, 1):
        console.print(Text(f"({number}) {note}", style="red"))
    for remark in board.remarks:
        console.print(Text(remark, style="dim"))
    for flag, rows in board.raised:
        line = Text(f"{flag.id} ", style=_COLOURS[flag.colour])
        console.print(line.append(f"{rows}: {flag.title}. {flag.text}", style="dim"))


def _table(board: Board) -> Table:
    several = any(len(attacks) > 1 for attacks in board.attacks.values())
    tiers = [tier for tier in TIERS if board.attacks[tier]]
    more = _more(board)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("defense, worst case\n  each attack" if several else "\ndefense", overflow="fold", min_width=8)
    for heading in ["\nclean", *(one for tier in tiers for one in (f"{tier}\nattacked", "\nδ", "\nβ")), *more]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in board.rows:
        first, *others = _attacks(board)
        table.add_row(_name(row), _cell(row.clean), *_numbers(board, row, first, tiers), *_rest(row, more.values()))
        for attack in others:
            table.add_row(Text(f"  {plain(attack)}"), "", *_numbers(board, row, attack, tiers), *("" for _ in more))
    return table


def _more(board: Board) -> dict[str, list[int]]:
    """Heading -> places, of the columns that stand beside those of the attackers; times share one."""
    found: dict[str, list[int]] = {}
    for place, column in enumerate(board.columns):
        if not column.tint:
            heading = "time\nvs bare" if column.group == "time" else f"{column.group}\n{column.label}"
            found.setdefault(heading, []).append(place)
    return found


def _rest(row: Row, places: Iterable[Sequence[int]]) -> list[Text]:
    return [Text("\n").join(_cell(row.cells[place]) for place in some) for some in places]


def _attacks(board: Board) -> list[str]:
    """The lines of a defense: its one attack, or the worst case and then each."""
    found = list(dict.fromkeys(one.key for tier in TIERS for one in board.attacks[tier]))
    return found if len(found) == 1 else [WORST, *found]


def _name(row: Row) -> Text:
    name = Text(row.defense.text, style="bold")
    if row.rank not in ("", NONE):
        name.append(f"\n  rank {row.rank}", style="dim not bold")
    return name


def _numbers(board: Board, row: Row, attack: str, tiers: Sequence[Tier]) -> list[Text]:
    """The numbers of one line, for each tier."""
    cells = []
    for tier in tiers:
        entry = board.entries.get((row.defense.key, attack, tier))
        cells += [_cell(entry.numbers.get(one, Shown()) if entry else Shown()) for one in _MEASURES]
    return cells


def _cell(shown: Shown) -> Text:
    """A number, and below it how many images it is of, or else its interval."""
    text = Text(shown.text, style="" if shown.value is not None else "dim")
    if shown.note:
        text.append(f" ({shown.note})", style="red")
    if below := shown.suffix or shown.interval:
        text.append(f"\n{below}", style="dim")
    return text
