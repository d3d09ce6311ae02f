"""Tables as text: Markdown that a renderer keeps in columns and shows as text, CSV that `csv` reads back."""

import csv
import html
import io
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from support.hostile import PROMPTS

from sipo.errors import printable
from sipo.tables import Markdown, code, code_block, csv_table, csv_text, markdown_table, markdown_text

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="|\n"), max_size=8)
MARKUP = st.text(st.sampled_from("\\`*_~<>[]()!&#;:|=+-@'\"\t\r\n ax1"), max_size=12)
GRIDS = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(TEXT, min_size=n, max_size=n), min_size=2, max_size=4))
FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0", "'=1", "''+a", "\n=1"]
NUMBERS = ["-1", "+2.5", "-1e-5", ".5", "-3.20%", "1", -1, -0.5, 3]


def rendered(markdown: str) -> str:
    """HTML by a renderer that lets HTML pass, with GitHub's tables and strikethrough."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)


def seen(text: str) -> str:
    """What a reader should see of a text."""
    return " ".join(printable(re.sub(r"\s", " ", text)).split())


def test_markdown_sets_text_left_and_numbers_right():
    table = markdown_table(("Model", "Score", "by"), [("a|b", "0.5", "x"), ("c", None, "y")], left=("by",))
    assert table == "| Model | Score | by |\n|---|---:|---|\n| a\\|b | 0.5 | x |\n| c | – | y |\n"


@given(GRIDS)
def test_every_markdown_line_has_the_columns_of_the_head(grid):
    lines = markdown_table(grid[0], grid[1:]).removesuffix("\n").split("\n")
    assert len(lines) == len(grid) + 1
    assert {line.replace("\\\\", "").replace("\\|", "").count("|") for line in lines} == {len(grid[0]) + 1}


@given(MARKUP)
@example("[a](javascript:alert(1))")
@example("![a](https://evil.example/x.png)")
@example("<!-- | -->")
@example("\\|x")
@example("a&lt;b")
def test_a_cell_is_shown_as_the_text_that_it_is(text):
    page = rendered(markdown_table(("name",), [(text,)]))
    cell = re.search(r"<td>(.*)</td>", page)
    assert cell is not None
    assert "<" not in cell[1]
    assert " ".join(html.unescape(cell[1]).split()) == seen(text)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_hostile_prompts_in_a_heading(prompt):
    page = rendered(f"# {markdown_text(prompt)}\n")
    inner = page.removeprefix("<h1>").removesuffix("</h1>\n")
    assert "<" not in inner
    assert " ".join(html.unescape(inner).split()) == seen(prompt)


def test_what_is_markdown_stays_markdown():
    assert "| **a** | **b** |" not in markdown_table(("x", "y"), [("**a**", Markdown("**b**"))])
    assert "| \\*\\*a\\*\\* | **b** |" in markdown_table(("x", "y"), [("**a**", Markdown("**b**"))])
    assert markdown_text("win rate [95%], model_a_b, 3 < 4") == "win rate [95%], model_a_b, 3 &lt; 4"


@given(MARKUP.filter(str.strip))
@example("``")
@example("`</code><script>")
def test_code_is_shown_as_it_is(text):
    inner = rendered(f"x {code(text)} x").removeprefix("<p>x <code>").removesuffix("</code> x</p>\n")
    assert "<" not in inner
    assert " ".join(html.unescape(inner).split()) == seen(text)
    lines = text.replace("\r", "") + "\n"
    block = rendered(code_block(lines, "yaml"))
    assert html.unescape(block) == f'<pre><code class="language-yaml">{printable(lines)}</code></pre>\n'


@given(GRIDS)
def test_csv_reads_back(grid):
    rows = csv.reader(io.StringIO(csv_table(grid[0], grid[1:]), newline=""))
    assert [[csv_text(cell) for cell in row] for row in rows] == grid


@given(MARKUP)
def test_no_text_is_a_formula_to_a_spreadsheet(text):
    [_, [cell, _]] = csv.reader(io.StringIO(csv_table(["a", "b"], [[text, "x"]]), newline=""))
    assert not cell or cell[0] not in "=+-@\t\r\n" or cell.lstrip("+-").replace(".", "").isdigit()
    assert csv_text(cell) == text


@pytest.mark.parametrize("text", FORMULAS)
def test_formulas_are_written_as_texts(text):
    [_, [cell]] = csv.reader(io.StringIO(csv_table(["a"], [[text]]), newline=""))
    assert cell == f"'{text}"


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_stay_numbers(number):
    assert csv_table(["a"], [[number]]) == f"a\n{number}\n"
    assert csv_text(str(number)) == str(number)


def test_csv_has_an_empty_field_for_none():
    assert csv_table(["a", "b"], [[None, 0.1]]) == "a,b\n,0.1\n"
