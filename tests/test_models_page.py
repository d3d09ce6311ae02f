"""The table of docs/models.md names tests that there are, of every newer family."""

import re
from pathlib import Path

from support.newer_checkpoints import NEWER

TESTS = Path(__file__).parent
CELL = re.compile(r"`([\w/]+)\[([\w.-]+)\]`")


def test_every_cell_names_a_case_of_a_file_of_tests():
    page = (TESTS.parent / "docs" / "models.md").read_text()
    head, _, *rows = page[page.index("| family | forward parity |") :].split("\n\n")[0].splitlines()
    columns = head.count("|") - 2
    cases = [CELL.findall(row) for row in rows]
    assert [case[0][1] for case in cases] == list(NEWER)
    for case in cases:
        assert len(case) == columns
        assert len({name for _, name in case}) == 1
        for file, _ in case:
            text = (TESTS / f"{file}.py").read_text()
            assert "from support.newer_checkpoints import NEWER" in text  # the cases come from this table
