"""Boards on a terminal: a line for each defense and attack, both attackers side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from bench.core.text import plain
from bench.records.format import DASH, Formatted, failure_line
from bench.records.schema import TIERS, Latency, Outcome, Tier
from bench.report.board import WORST_CASE, Board, Entry, Row
from bench.report.boards import make_boards
from bench.report.summary import group, raised

_MEASURES = {"attacked_accuracy": "attacked", "delta": "δ", "beta": "β"}
_NAME = 8
"""The least width of the column with the names."""
_GAP = 2
"""Between two columns."""
_COLOURS = {"red": "red", "amber": "yellow"}


def print_boards(outcomes: Iterable[Outcome], latencies: Iterable[Latency], console: Console) -> None:
    """Prints the boards of these records."""
    boards, unknown = make_boards(outcomes, latencies)
    for board in boards:
        _print(board, console)
    for outcome in unknown:
        console.print(Text(failure_line(outcome), style="red"))


def _print(board: Board, console: Console) -> None:
    conditions = board.conditions
    console.print()
    console.print(Text(f"{plain(conditions.dataset)} · {plain(conditions.model)} · {board.budget}", style="bold"))
    console.print(Text(f"{board.description}; percent, with 95 % intervals", style="dim"))
    table, left_out = _fitting_table(board, console)
    console.print(table)
    if left_out:
        console.print(Text(f"No room for: {', '.join(left_out)}.", style="dim"))
    for number, note in enumerate(board.footnotes, 1):
        console.print(Text(f"({number}) {note}", style="red"))
    for remark in board.remarks:
        console.print(Text(remark, style="dim"))
    for flag, rows in raised(board, brief=False):
        line = Text(f"{flag.id} ", style=_COLOURS[flag.colour])
        console.print(line.append(f"{rows}: {flag.title}. {flag.text}", style="dim"))


def _fitting_table(board: Board, console: Console) -> tuple[Table, list[str]]:
    """The table, and the headings of the columns that were left out to make it fit."""
    left_out: list[str] = []
    table = _table(board)
    last = ["oblivious"] if board.basis == "adaptive" else []
    for name in ("β", "δ", *reversed(_other_columns(board)), *last):
        if _needed(table, console) <= console.width:
            break
        left_out.append(name)
        table = _table(board, left_out)
    return table, [one.replace("\n", " ") for one in left_out]


def _needed(table: Table, console: Console) -> int:
    """The width at which no number is cut; only the names in the first column may be folded."""
    free = console.options.update(width=999)
    widths = [
        max(Measurement.get(console, free, cell).maximum for cell in (column.header, *column.cells))
        for column in table.columns[1:]
    ]
    return _NAME + sum(widths) + _GAP * len(widths)


def _table(board: Board, left_out: Sequence[str] = ()) -> Table:
    tiers = [tier for tier in TIERS if board.attacks[tier] and tier not in left_out]
    measures = {name: heading for name, heading in _MEASURES.items() if heading not in left_out}
    first, *others = _attacks(board)
    other_columns = {heading: places for heading, places in _other_columns(board).items() if heading not in left_out}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("defense, worst case\n  each attack" if others else "\ndefense", overflow="fold", min_width=_NAME)
    headings = [f"{tier if not place else ''}\n{one}" for tier in tiers for place, one in enumerate(measures.values())]
    for heading in ["\nclean", *headings, *other_columns]:
        table.add_column(heading, justify="right", no_wrap=True)
    section = ""
    for row in board.rows:
        if row.section and row.section != section:
            section = row.section
            table.add_row(Text(section, style="italic dim"))
        more = [_other_cell(board, row, places) for places in other_columns.values()]
        table.add_row(_name(row), _cell(row.clean), *_numbers(board, row, first, tiers, measures), *more)
        for attack in others:
            numbers = _numbers(board, row, attack, tiers, measures)
            table.add_row(Text(f"  {plain(attack)}"), "", *numbers, *("" for _ in more))
    return table


def _other_cell(board: Board, row: Row, places: Sequence[int]) -> Text:
    """Numbers that share a column, each with its batch size if it is a time."""
    lines = []
    for place in places:
        line, label = _cell(row.cells[place]), board.columns[place].label
        if label.startswith("batch") and row.cells[place].value is not None:
            line.append(f" at {label.removeprefix('batch ')}", style="dim")
        lines.append(line)
    return Text("\n").join(lines)


def _attacks(board: Board) -> list[str]:
    """The lines of a defense: its only attack, or the worst case and then each attack."""
    attacks = list(dict.fromkeys(one.key for tier in TIERS for one in board.attacks[tier]))
    return attacks if len(attacks) == 1 else [WORST_CASE, *attacks]


def _other_columns(board: Board) -> dict[str, list[int]]:
    """Heading -> places of the columns that belong to no attacker; all times share one heading."""
    return group(
        ("time\nvs bare" if column.label.startswith("batch") else f"{column.group}\n{column.label}", place)
        for place, column in enumerate(board.columns)
        if not column.tint
    )


def _name(row: Row) -> Text:
    name = Text(row.defense.text, style="bold")
    if row.rank not in ("", DASH):
        name.append(f"\n  rank {row.rank}", style="dim not bold")
    return name


def _numbers(board: Board, row: Row, attack: str, tiers: Sequence[Tier], measures: Iterable[str]) -> list[Text]:
    """The numbers of one line, for each tier."""
    entries = [board.entries.get((row.defense.key, attack, tier), Entry({})) for tier in tiers]
    return [_cell(entry.numbers.get(name, Formatted())) for entry in entries for name in measures]


def _cell(number: Formatted) -> Text:
    """A number, and below it how many images it is from, or else its interval."""
    text = Text(number.text, style="" if number.value is not None else "dim")
    if number.note:
        text.append(f" ({number.note})", style="red")
    if below := number.suffix or number.interval:
        text.append(f"\n{below}", style="dim")
    return text
