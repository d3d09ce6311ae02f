"""Tables as text: Markdown for people, CSV for programs."""

import csv
import io
from collections.abc import Collection, Iterable, Sequence


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]], left: Collection[str] = ()) -> str:
    """A Markdown table with a final newline. The first column and those in `left` are text, the others are numbers.

    Numbers are set flush right. Cells are written with `str`, their bars and line breaks escaped; None is a dash.
    """
    marks = ["---" if place == 0 or title in left else "---:" for place, title in enumerate(head)]
    lines = [_line(map(_cell, head)), f"|{'|'.join(marks)}|", *(_line(map(_cell, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def csv_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV table with a header; None is an empty field."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([head, *rows])
    return buffer.getvalue()


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    return "–" if value is None else str(value).replace("|", "\\|").replace("\n", " ")
