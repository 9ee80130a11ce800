"""The papers' tables in LaTeX, for pdflatex with booktabs and graphicx."""

from __future__ import annotations

from collections.abc import Sequence

from bench.core.text import escape_latex
from bench.papers.comparison import ComparedTable, ComparedValue

_PREAMBLE = r"""% Made by `bench tables`; do not edit. Needs booktabs and graphicx.
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


def latex_document(names: Sequence[str]) -> str:
    """A document with all tables, which are in files beside it."""
    parts = "".join(f"\\input{{{name}}}\n\\clearpage\n" for name in names)
    return f"{_PREAMBLE}{parts}\\end{{document}}\n"


def latex_table(compared: ComparedTable) -> str:
    """One table of the document: the reported values, and below each, smaller, its measurement."""
    table, paper = compared.table, compared.paper
    caption = f"{paper.authors} ({paper.where}), {table.table}. {table.caption} Values in {table.unit}."
    body = "".join(_row(compared, place) for place in range(len(compared.rows)))
    return (
        "\\begin{table}[p]\n\\centering\n"
        f"\\caption{{{escape_latex(caption)}}}\n\\label{{reported:{table.name}}}\n"
        "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"
        f"\\begin{{tabular}}{{l{'r' * len(table.columns)}}}\n\\toprule\n"
        f"{_headings(compared)}\\midrule\n{body}\\bottomrule\n\\end{{tabular}}}}\n\n"
        "\\smallskip\\begin{minipage}{\\linewidth}\\scriptsize\\raggedright\n"
        f"{_lists(compared)}\\end{{minipage}}\n\\end{{table}}\n"
    )


def _headings(compared: ComparedTable) -> str:
    *upper, lowest = compared.headings
    lines = []
    for headings in upper:
        cells, rules, start = [""], [], 2
        for text, width, _ in headings:
            cells.append(f"\\multicolumn{{{width}}}{{c}}{{{escape_latex(text)}}}")
            rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        lines.append(f"{' & '.join(cells)} \\\\\n{' '.join(rules)}\n")
    cells = [f"\\multicolumn{{1}}{{r}}{{{escape_latex(text)}{_marks(notes)}}}" for text, _, notes in lowest]
    return "".join(lines) + " & ".join([escape_latex(compared.table.corner), *cells]) + " \\\\\n"


def _row(compared: ComparedTable, place: int) -> str:
    label, notes = compared.labels[place]
    values = compared.rows[place]
    reported = [escape_latex(label) + _marks(notes), *(escape_latex(one.printed) + _marks(one.notes) for one in values)]
    measured = ["", *map(_measurement, values)]
    # \relax, because \\ would take a cell that begins with [ for the space to add
    second = " & ".join(measured) + " \\\\\n" if any(measured) else ""
    return "\\relax " + " & ".join(reported) + " \\\\\n" + second


def _measurement(value: ComparedValue) -> str:
    number, flags = value.measurement.number, value.measurement.flags
    if number is None:
        return f"{{\\scriptsize {value.pointer}}}" if value.pointer else ""
    text = f"\\textbf{{{escape_latex(number.text)}}}"
    interval = f" ({escape_latex(number.interval)})" if number.interval else ""
    dagger = f" {escape_latex('†' + ' '.join(flags))}" if flags else ""
    return f"{{\\scriptsize {text}{interval}\\textsuperscript{{{value.letter}}}{dagger}}}"


def _lists(compared: ComparedTable) -> str:
    lines = [f"({number}) {escape_latex(note.text)}" for number, note in enumerate(compared.table.notes, 1)]
    lines += [f"\\textsuperscript{{{letter}}} {escape_latex(one.sentence)}" for letter, one in compared.origins.items()]
    lines += [f"n/a {number}: {escape_latex(reason)}" for number, reason in enumerate(compared.reasons, 1)]
    lines += [f"run {number}: \\texttt{{{escape_latex(run)}}}" for number, run in enumerate(compared.runs, 1)]
    return "".join(f"{line}\\par\n" for line in lines)


def _marks(notes: Sequence[int]) -> str:
    return f"\\textsuperscript{{({', '.join(map(str, notes))})}}" if notes else ""
