"""Text stays text, whatever reads it."""

from __future__ import annotations

import csv
import re
from io import StringIO

import pytest

from bench.core.text import csv_text, escape_latex, escape_markdown, markdown_table, plain


def test_text_stays_on_its_line_and_loses_control_characters() -> None:
    assert plain("a\n\x1b[31mb\r\u2028 c\x00") == "a [31mb c"


def test_escaped_markdown_means_the_text_itself() -> None:
    assert escape_markdown("a|b `c` <d> *e* [f](g)") == r"a\|b \`c\` &lt;d&gt; \*e\* \[f\](g)"


def test_a_markdown_table_has_a_rule_for_each_column() -> None:
    assert markdown_table(["a", "b"], [["1", "2"]], "lr") == "| a | b |\n| --- | --: |\n| 1 | 2 |\n"


def test_text_means_itself_in_latex() -> None:
    assert escape_latex(r"\input{x} 5 % & a_b $#^~ ≤ δ 漢") == (
        r"\textbackslash{}input\{x\} 5 \% \& a\_b \$\#\textasciicircum{}\textasciitilde{} $\leq$ $\delta$ [U+6F22]"
    )


@pytest.mark.parametrize("text", ["<b>|`x`$\\input{x}\n# *y* & ~ ^ _ % 漢", "{}\\end{document}", "λ ≤ δ − é"])
def test_latex_text_has_no_bare_special_character(text: str) -> None:
    left = re.sub(r"\\(text\w+\{\}|[{}$&#_%])|\$\\?[\w-]+\$|\[U\+[0-9A-F]+\]", "", escape_latex(text))
    assert not re.search(r"[\\{}$&#_%^~<>|\"`]", left)


@pytest.mark.parametrize("text", ["=1+1", "+1", "@x", "-x", "-1+cmd|' /C calc'!A0", "\t=1", "\n@x"])
def test_no_text_is_a_formula_in_a_spreadsheet(text: str) -> None:
    ((cell,),) = csv.reader(StringIO(csv_text([[text]])))
    assert cell == f"'{text.strip()}"


@pytest.mark.parametrize("text", ["-1.5", "–", "-", "--", "-5 %", "-1e-05", "a=1", 'a,b"c'])
def test_numbers_and_other_texts_are_csv_as_they_are(text: str) -> None:
    assert list(csv.reader(StringIO(csv_text([["x"], [text]])))) == [["x"], [text]]


def test_what_is_not_known_is_empty_in_csv() -> None:
    assert csv_text([["a", "b", "c"], [float("nan"), None, 0.1]]) == "a,b,c\n,,0.1\n"
