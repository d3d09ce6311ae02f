"""Tables as text: Markdown that a renderer keeps in columns, CSV that `csv` reads back."""

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from sipo.tables import csv_table, markdown_table

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="|\n"), max_size=8)
GRIDS = st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(TEXT, min_size=n, max_size=n), min_size=2, max_size=4))


def test_markdown_sets_text_left_and_numbers_right():
    table = markdown_table(("Model", "Score", "by"), [("a|b", "0.5", "x"), ("c", None, "y")], left=("by",))
    assert table == "| Model | Score | by |\n|---|---:|---|\n| a\\|b | 0.5 | x |\n| c | – | y |\n"


@given(GRIDS)
def test_every_markdown_line_has_the_columns_of_the_head(grid):
    lines = markdown_table(grid[0], grid[1:]).removesuffix("\n").split("\n")
    assert len(lines) == len(grid) + 1
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(grid[0]) + 1}


@given(GRIDS)
def test_csv_reads_back(grid):
    assert list(csv.reader(io.StringIO(csv_table(grid[0], grid[1:]), newline=""))) == grid


def test_csv_has_an_empty_field_for_none():
    assert csv_table(["a", "b"], [[None, 0.1]]) == "a,b\n,0.1\n"
