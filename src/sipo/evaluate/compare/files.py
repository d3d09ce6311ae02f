"""A comparison's files: JSON for programs and the run's report, HTML for people, Markdown and CSV for papers."""

import json
from pathlib import Path

from sipo.evaluate.compare.contest import Contest
from sipo.evaluate.compare.record import JSON, contest_record
from sipo.evaluate.pages.comparison_text import comparison_csv, comparison_markdown, means_csv
from sipo.evaluate.pages.gallery import BUDGET, sections
from sipo.evaluate.pages.page import render
from sipo.evaluate.pages.words import cautions, comparison_paragraph
from sipo.files import write_atomic

HTML, MARKDOWN = "comparison.html", "comparison.md"
COMPARISON_CSV, MEANS_CSV = "comparison.csv", "table.csv"


def write_contest(contest: Contest, out: Path) -> Path:
    """Write all files into the folder `out` and return the path of the HTML, which needs no other file.

    table.csv holds the mean scores, so votes alone make none.
    """
    out = Path(out)
    record = contest_record(contest, out)
    write_atomic(out / JSON, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(out / MARKDOWN, comparison_markdown(record))
    write_atomic(out / COMPARISON_CSV, comparison_csv(record))
    if record["table"]:
        write_atomic(out / MEANS_CSV, means_csv(record["table"]))
    write_atomic(out / HTML, _page(record, out))
    return out / HTML


def _page(record: dict, out: Path) -> str:
    comparisons = record["comparisons"]
    names = list(dict.fromkeys(name for each in comparisons for name in each["names"]))
    is_single = len(comparisons) == 1
    galleries = [
        sections(
            each,
            out,
            num_random=0,
            num_extreme=24 if is_single else 8,
            rest=is_single,
            budget=BUDGET // len(comparisons),
        )
        for each in comparisons
    ]
    return render(
        "comparison.html",
        title=f"{names[0]} against {names[1] if len(names) == 2 else f'{len(names) - 1} others'}",
        paragraph=comparison_paragraph(comparisons[0]),
        notices=list(dict.fromkeys(text for each in comparisons for text in cautions(each))),
        comparisons=list(zip(comparisons, galleries, strict=True)),
        table=record["table"],
    )
