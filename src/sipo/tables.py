"""Tables as text: Markdown for people, CSV for programs. Texts from outside (names, prompts) are shown, never obeyed.

A spreadsheet takes a text that begins with = + - @, a tab or a carriage return for a formula: it is written after an
apostrophe, which `csv_text` takes away again. Numbers stay numbers.
"""

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence

from sipo.errors import printable

FORMULA = re.compile("'*[=+\\-@\t\r\n]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?%?\Z")
# What Markdown or HTML would read as more than text; single brackets alone are text.
MARKUP = re.compile(r"[\\`*<]|&(?=[#\w]+;)|~(?=~)|(?<=\])[(\[]|(?<!\w)_|_(?!\w)")


class Markdown(str):
    """A text that is Markdown already."""


def markdown_text(text: object) -> str:
    """A text inside Markdown, as it is read: on one line, without markup, links, HTML and unseen characters."""
    if isinstance(text, Markdown):
        return text
    line = printable(re.sub(r"\s", " ", str(text)))
    return MARKUP.sub(lambda found: {"<": "&lt;", "&": "&amp;"}.get(found[0], f"\\{found[0]}"), line)


def code(text: object) -> str:
    """A text as Markdown's code, between more backticks than it holds."""
    line = printable(re.sub(r"\s", " ", str(text)))
    ticks = "`" * (max((len(run) for run in re.findall("`+", line)), default=0) + 1)
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def code_block(text: str, language: str) -> str:
    """Lines as a block of code, which none of them ends."""
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 0)
    return f"{fence}{language}\n{printable(text)}{fence}\n"


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]], left: Collection[str] = ()) -> str:
    """A Markdown table with a final newline. The first column and those in `left` are text, the others are numbers.

    Numbers are set flush right. Cells are `markdown_text`, their bars escaped; None is a dash.
    """
    marks = ["---" if place == 0 or title in left else "---:" for place, title in enumerate(head)]
    lines = [_line(map(_cell, head)), f"|{'|'.join(marks)}|", *(_line(map(_cell, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def csv_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table with a header; None is an empty field. `csv` and `csv_text` read it back."""
    buffer = io.StringIO()
    for row in [head, *rows]:
        cells = [_csv_cell(cell) for cell in row]
        broken = any(isinstance(cell, str) and "\r" in cell for cell in cells)  # which `csv` does not quote by itself
        quoting = csv.QUOTE_ALL if broken else csv.QUOTE_MINIMAL
        csv.writer(buffer, lineterminator="\n", quoting=quoting).writerow(cells)
    return buffer.getvalue()


def csv_text(cell: str) -> str:
    """What was written into a cell of `csv_table`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _csv_cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) and not NUMBER.match(value) else value


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    return "–" if value is None else markdown_text(value).replace("|", "\\|")
