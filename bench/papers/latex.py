"""The papers' tables in LaTeX, for pdflatex with booktabs and graphicx."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.text import escape_latex
from bench.papers.fill import Filled, Value

PREAMBLE = r"""% Made by `bench tables`; do not edit. Needs booktabs and graphicx.
\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage[margin=15mm]{geometry}
\usepackage{booktabs,graphicx}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\begin{document}
\title{Reported and measured}
\date{}
\maketitle
"""


def document(names: Sequence[str]) -> str:
    """A document of all tables, which lie beside it."""
    parts = "".join(f"\\input{{{name}}}\n\\clearpage\n" for name in names)
    return f"{PREAMBLE}{parts}\\end{{document}}\n"


def table(filled: Filled) -> str:
    """One table, a part of a document: the reported values, and under each, smaller, what stands beside it."""
    source = filled.table
    title = f"{filled.paper.authors} ({filled.paper.where}), {source.table}. {source.caption} Values in {source.unit}."
    body = "".join(_row(filled, place) for place in range(len(filled.rows)))
    return (
        "\\begin{table}[p]\n\\centering\n"
        f"\\caption{{{escape_latex(title)}}}\n\\label{{reported:{source.name}}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{l{'r' * len(source.columns)}}}\n\\toprule\n"
        f"{_heads(filled)}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}}}\n\n"
        "\\smallskip\\begin{minipage}{\\linewidth}\\scriptsize\\raggedright\n"
        f"{_lists(filled)}\\end{{minipage}}\n\\end{{table}}\n"
    )


def _heads(filled: Filled) -> str:
    lines = []
    for level, heads in enumerate(filled.heads):
        last = level == len(filled.heads) - 1
        cells = [escape_latex(filled.table.corner) if last else ""]
        rules, at = [], 2
        for text, width, notes in heads:
            cells.append(f"\\multicolumn{{{width}}}{{{'r' if last else 'c'}}}{{{escape_latex(text)}{_sup(notes)}}}")
            rules.append(f"\\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        lines.append(" & ".join(cells) + " \\\\\n" + ("" if last else " ".join(rules) + "\n"))
    return "".join(lines)


def _row(filled: Filled, place: int) -> str:
    label, notes = filled.labels[place]
    values = filled.rows[place]
    reported = [escape_latex(label) + _sup(notes), *(escape_latex(one.printed) + _sup(one.notes) for one in values)]
    beside = ["", *map(_beside, values)]
    # \relax, since a cell that begins with [ would be read as the space that \\ adds
    second = " & ".join(beside) + " \\\\\n" if any(beside) else ""
    return "\\relax " + " & ".join(reported) + " \\\\\n" + second


def _beside(value: Value) -> str:
    shown = value.beside.shown
    if shown is None:
        pointer = f"run {value.run}" if value.run else f"n/a {value.reason}" if value.reason else ""
        return f"{{\\scriptsize {pointer}}}" if pointer else ""
    interval = f" ({escape_latex(shown.interval)})" if shown.interval else ""
    flags = f" {escape_latex('†' + ' '.join(value.beside.flags))}" if value.beside.flags else ""
    return (
        f"{{\\scriptsize \\textbf{{{escape_latex(shown.text)}}}{interval}\\textsuperscript{{{value.letter}}}{flags}}}"
    )


def _lists(filled: Filled) -> str:
    notes = [f"({number}) {escape_latex(note.text)}" for number, note in enumerate(filled.table.notes, 1)]
    told = [
        f"\\textsuperscript{{{letter}}} {escape_latex(source.sentence)}" for letter, source in filled.sources.items()
    ]
    reasons = [f"n/a {number}: {escape_latex(reason)}" for number, reason in enumerate(filled.reasons, 1)]
    runs = [f"run {number}: \\texttt{{{escape_latex(run)}}}" for number, run in enumerate(filled.runs, 1)]
    return "".join(f"{line}\\par\n" for line in (*notes, *told, *reasons, *runs))


def _sup(notes: Sequence[int]) -> str:
    return f"\\textsuperscript{{({', '.join(map(str, notes))})}}" if notes else ""
