"""What comes from outside is printed as text: no markup, no control of the terminal, nothing hidden or reordered."""

import io

import pytest
from rich.control import strip_control_codes
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sipo.errors import printable, shown
from sipo.progress import progress_bar
from sipo.screen import Screen

HOSTILE = [
    "[/x]",
    "[bold]",
    "{task.nothing}",
    "{",
    "\udc80",
    "\x1b[2J\x07",
    "\u202egnp.exe",
    "a\rb",
    "\x9b31m",
    "\\[",
    "\u200bhidden",
]
UNSEEN = ["\x1b", "\x07", "\r", "\x9b", "\u202e", "\u200b", "\udc80"]


@pytest.mark.parametrize("text", HOSTILE)
def test_everything_a_screen_prints(text):
    out = io.StringIO()
    screen = Screen(file=out, width=120)
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    screen.print(text, table, Text(text), style="red")
    screen.rule(text)
    with screen.status(Text(text)), Progress(TextColumn("{task.description}", markup=False), console=screen) as bar:
        bar.add_task(text)
    with progress_bar(screen, f"Scoring {text}", 2) as advance:
        advance(2)
    found = out.getvalue()
    assert printable(strip_control_codes(text)).strip() in found  # rich itself drops a bell and a carriage return
    assert not [unseen for unseen in UNSEEN if unseen in found]
    found.encode()


def test_styles_still_reach_a_terminal():
    out = io.StringIO()
    Screen(file=out, force_terminal=True, color_system="standard", width=80).print(
        "plain \x1b]31m", style="red", highlight=False
    )
    assert out.getvalue() == "\x1b[31mplain \\x1b]31m\x1b[0m\n"


def test_printable_keeps_what_people_write():
    for text in ("Zoë, naïve", "日本語", "שלום", "a\nb\tc", "👩\u200d🚀", "\\x1b"):
        assert printable(text) == text
    assert printable("a\x00b\udcff\u2028") == "a\\x00b\\udcff\\u2028"


def test_shown_is_bounded():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for value in (16**9000, deep, "x" * 10**6, {"k": ["\x1b"] * 10**5}):
        assert len(shown(value)) < 1100
        assert "\x1b" not in shown(value)
