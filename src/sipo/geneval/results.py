"""GenEval's results: a line a picture, a share per category, their mean, and the table of several models.

results.jsonl     a line a picture, in the official evaluator's fields
geneval.json      the summary: categories, overall, and what made and judged the pictures
geneval.md .csv   the summary as a table
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.flags import read_flag
from sipo.jsonl import dump_jsonl, read_json, read_jsonl
from sipo.samples.metadata import CATEGORIES
from sipo.tables import csv_table, markdown_table

RESULTS, SUMMARY = "results.jsonl", "geneval.json"
HEADINGS = ("Sin Obj.", "Two Obj.", "Counting", "Colors", "Position", "Color Attri.", "Overall")
"""The columns of the paper's Table 3, in the order of CATEGORIES."""


def summarise(records: Sequence[Mapping], about: Mapping[str, object]) -> dict:
    """Shares of right pictures by category and `overall`, with `about` (model, prompts, detector, ...) beside them.

    `overall` is the mean of the six categories' shares (djghosh13/geneval: evaluation/summary_scores.py), null unless
    all six are present. `correct_images` and `correct_prompts` (any picture right) are shares of all.
    """
    by_tag, by_prompt = defaultdict(list), defaultdict(list)
    for record in records:
        by_tag[record["tag"]].append(bool(record["correct"]))
        by_prompt[record["metadata"]].append(bool(record["correct"]))
    categories = {
        tag: {"score": sum(by_tag[tag]) / len(by_tag[tag]), "correct": sum(by_tag[tag]), "images": len(by_tag[tag])}
        for tag in CATEGORIES
        if by_tag[tag]
    }
    complete = len(categories) == len(CATEGORIES)
    scores = [entry["score"] for entry in categories.values()]
    return {
        **about,
        "categories": categories,
        "overall": math.fsum(scores) / len(scores) if complete else None,
        "images": len(records),
        "num_prompts": len(by_prompt),
        "correct_images": sum(map(sum, by_tag.values())) / len(records),
        "correct_prompts": sum(map(any, by_prompt.values())) / len(by_prompt),
    }


def write_results(folder: Path, records: Sequence[Mapping], about: Mapping[str, object]) -> dict:
    """Write all files of the results into `folder`, and return the summary."""
    summary = summarise(records, about)
    write_atomic(folder / RESULTS, dump_jsonl(records))
    write_atomic(folder / "geneval.md", as_markdown([summary]))
    write_atomic(folder / "geneval.csv", as_csv([summary]))
    write_atomic(folder / SUMMARY, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
    return summary


def read_summary(folder: Path) -> dict:
    """The summary that judging wrote. `UserError` where there is none."""
    path = Path(folder) / SUMMARY
    summary = read_json(path, "Judge the folder again.")
    if summary is None:
        raise UserError(f"{folder} has no {SUMMARY}: judge it first, with `sipo geneval judge {folder}`.")
    if not isinstance(summary, dict) or not {"categories", "overall", "name", "prompts", "detector"} <= summary.keys():
        raise UserError(f"{path} is not what `sipo geneval judge` writes: judge the folder again.")
    return summary


def read_official(path: Path) -> dict:
    """The summary of a `results.jsonl` that the official evaluator wrote, which does not record what made it."""
    records = read_jsonl(path)
    texts = [isinstance(record.get(key), str) for record in records for key in ("tag", "metadata")]
    if not records or not all(texts) or not all("correct" in record for record in records):
        raise UserError(
            f"{path}: expected a line a picture with tag, correct and metadata, as GenEval's evaluator writes."
        )
    flags = [read_flag(record["correct"]) for record in records]
    if None in flags:
        line = flags.index(None)
        raise UserError(f"{path}, line {line + 1}: correct is {records[line]['correct']!r}; expected true or false.")
    records = [{**record, "correct": flag} for record, flag in zip(records, flags, strict=True)]
    return summarise(records, {"name": str(path), "prompts": "not recorded", "detector": "not recorded"})


def table(summaries: Sequence[Mapping]) -> list[dict]:
    """A row a model: its name, Table 3's seven columns (None where no picture of a category was judged), and how."""
    rows = []
    for summary in summaries:
        shares = [summary["categories"].get(tag, {}).get("score") for tag in CATEGORIES]
        figures = dict(zip(HEADINGS, [*shares, summary["overall"]], strict=True))
        rows.append(
            {"Model": summary["name"], **figures, "prompts": summary["prompts"], "detector": summary["detector"]}
        )
    return rows


def as_markdown(summaries: Sequence[Mapping]) -> str:
    """The table for people, with two decimals as in the paper."""
    rows = table(summaries)
    cells = [[f"{value:.2f}" if isinstance(value, float) else value for value in row.values()] for row in rows]
    return markdown_table(list(rows[0]), cells, left=("prompts", "detector"))


def as_csv(summaries: Sequence[Mapping]) -> str:
    """The table with all digits."""
    rows = table(summaries)
    return csv_table(list(rows[0]), [list(row.values()) for row in rows])


def as_jsonl(summaries: Sequence[Mapping]) -> str:
    return dump_jsonl(table(summaries))
