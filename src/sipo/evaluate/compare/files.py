"""Comparisons as files: JSON for programs and the run's report, HTML for people, Markdown and CSV for papers."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from sipo.errors import UserError
from sipo.evaluate.compare.contest import Contest, alone
from sipo.evaluate.compare.pairs import Comparison, Outcome, Pair, verdict
from sipo.evaluate.pages.comparison_text import comparison_csv, markdown, table_csv
from sipo.evaluate.pages.gallery import BUDGET, sections
from sipo.evaluate.pages.page import render
from sipo.evaluate.pages.words import cautions, comparison_paragraph
from sipo.evaluate.scores.score import Score
from sipo.files import write_atomic
from sipo.samples.folder import read_settings

JSON, HTML, MARKDOWN = "comparison.json", "comparison.html", "comparison.md"
LONG_CSV, TABLE_CSV = "comparison.csv", "table.csv"


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """`write_contest` of a single comparison."""
    return write_contest(alone(comparison), out)


def write_contest(contest: Contest, out: Path) -> Path:
    """Write all five files into the folder `out` and return the path of the HTML, which needs no other file."""
    out = Path(out)
    record = contest_record(contest, out)
    write_atomic(out / JSON, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    write_atomic(out / MARKDOWN, markdown(record))
    write_atomic(out / LONG_CSV, comparison_csv(record))
    write_atomic(out / TABLE_CSV, table_csv(record))
    write_atomic(out / HTML, _page(record, out))
    return out / HTML


def read_comparison(folder: Path) -> dict | None:
    """What was recorded in `folder`, as plain dictionaries (see `contest_record`); None where there is nothing."""
    path = Path(folder) / JSON
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}). Compare again, or remove it.") from error


def contest_record(contest: Contest, relative_to: Path) -> dict:
    """The first comparison's keys (see `to_dict`), and beside them `more`: the other comparisons, and `table`: all means."""
    records = []
    for comparison, (p_mean, p_sign) in zip(contest.comparisons, contest.adjusted, strict=True):
        record = to_dict(comparison, relative_to)
        record["adjusted"] = {"p_mean": p_mean, "p_sign": p_sign, "num_comparisons": len(contest.comparisons)}
        record["judges"] = [judges.get(comparison.scorer, []) for judges in contest.judges]
        records.append(record)
    return records[0] | {"table": asdict(contest.table), "more": records[1:]}


def to_dict(comparison: Comparison, relative_to: Path) -> dict:
    """JSON values only; the folders as paths from `relative_to`, so that a run directory can be moved."""
    return {
        "scorer": comparison.scorer,
        "names": list(comparison.names),
        "folders": [Path(os.path.relpath(folder, relative_to)).as_posix() for folder in comparison.folders],
        "settings": [read_settings(folder) for folder in comparison.folders],
        "tie_margin": comparison.tie_margin,
        "overall": _outcome(comparison.overall),
        "categories": {tag: _outcome(outcome) for tag, outcome in comparison.categories.items()},
        "unpaired": list(comparison.unpaired),
        "left_out": comparison.num_left_out,
        "unscored": [{"file": score.sample.file, "error": score.error} for score in comparison.unscored],
        "pairs": [_pair(pair, comparison) for pair in comparison.pairs],
    }


def _page(record: dict, out: Path) -> str:
    records = [record, *record["more"]]
    names = list(dict.fromkeys(name for each in records for name in each["names"]))
    shown = 24 if len(records) == 1 else 8
    galleries = [
        sections(each, out, num_random=0, num_extreme=shown, rest=len(records) == 1, budget=BUDGET // len(records))
        for each in records
    ]
    notices = list(dict.fromkeys(text for each in records for text in cautions(each)))
    return render(
        "comparison.html",
        title=f"{names[0]} against {names[1] if len(names) == 2 else f'{len(names) - 1} others'}",
        paragraph=comparison_paragraph(record),
        notices=notices,
        comparisons=list(zip(records, galleries, strict=True)),
        table=record["table"],
    )


def _outcome(outcome: Outcome) -> dict:
    return asdict(outcome) | {"details": {key: list(means) for key, means in outcome.details.items()}}


def _pair(pair: Pair, comparison: Comparison) -> dict:
    return {
        "prompt": pair.a.sample.prompt,
        "seed": pair.a.sample.seed,
        "category": pair.tag(comparison.category),
        "difference": pair.difference,
        "verdict": verdict(pair.difference, comparison.tie_margin),
        "sides": [_side(pair.a), _side(pair.b)],
    }


def _side(score: Score) -> dict:
    return {"file": score.sample.file, "score": score.value, "details": score.details}
