"""A comparison's files: JSON for programs and the run's report, HTML for people, Markdown and CSV for papers."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from sipo.errors import well_formed
from sipo.evaluate.compare.contest import Contest
from sipo.evaluate.compare.matches import Comparison, Match, Outcome
from sipo.evaluate.pages.comparison_text import comparison_csv, comparison_markdown, means_csv
from sipo.evaluate.pages.gallery import BUDGET, sections
from sipo.evaluate.pages.page import render
from sipo.evaluate.pages.words import cautions, comparison_paragraph
from sipo.files import write_atomic
from sipo.jsonl import read_object
from sipo.samples.folder import read_settings

JSON, HTML, MARKDOWN = "comparison.json", "comparison.html", "comparison.md"
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


def contest_record(contest: Contest, relative_to: Path) -> dict:
    """{"comparisons": [...], "table": the means of all models, or null}, JSON values only.

    Folders are paths from `relative_to`, so that a run directory can be moved.
    """
    comparisons = []
    for comparison, (p_mean, p_sign) in zip(contest.comparisons, contest.adjusted(), strict=True):
        tested = {"p_mean": p_mean, "p_sign": p_sign, "num_comparisons": len(contest.comparisons)}
        settings = [of_side.get(comparison.scorer, []) for of_side in contest.scorer_settings]
        comparisons.append(_comparison(comparison, relative_to) | {"adjusted": tested, "scorer_settings": settings})
    return {"comparisons": comparisons, "table": contest.table and asdict(contest.table)}


def read_comparison(folder: Path) -> dict | None:
    """The record in `folder` (see `contest_record`); None without one.

    Records of version 0.1.0, which was never released, nest the other comparisons in the first; they are read too.
    """
    path, advice = Path(folder) / JSON, "Compare again, or remove it."
    if not path.exists():
        return None
    record = read_object(path, advice=advice)
    with well_formed(path, advice):
        record = record if "comparisons" in record else _from_first_version(record)
        comparison_csv(record)  # reads every number
        if not record["comparisons"] or not all(
            _is_pair(pair) for each in record["comparisons"] for pair in each["pairs"]
        ):
            raise ValueError("it names no comparison, or other files than two for a pair")
    return record


def _is_pair(pair: dict) -> bool:
    return len(pair["sides"]) == 2 and all(isinstance(side["file"], str) for side in pair["sides"])


def _page(record: dict, out: Path) -> str:
    comparisons = record["comparisons"]
    names = list(dict.fromkeys(name for each in comparisons for name in each["names"]))
    is_single, budget = len(comparisons) == 1, BUDGET // len(comparisons)
    num_extreme = 24 if is_single else 8
    galleries = [sections(each, out, 0, num_extreme, rest=is_single, budget=budget) for each in comparisons]
    return render(
        "comparison.html",
        title=f"{names[0]} against {names[1] if len(names) == 2 else f'{len(names) - 1} others'}",
        paragraph=comparison_paragraph(comparisons[0]),
        notices=list(dict.fromkeys(text for each in comparisons for text in cautions(each))),
        comparisons=list(zip(comparisons, galleries, strict=True)),
        table=record["table"],
    )


def _from_first_version(record: dict) -> dict:
    table, others = record.pop("table", None), record.pop("more", [])
    comparisons = [
        {**each, "scorer_settings": each.get("judges", []), "adjusted": each.get("adjusted", {})}
        for each in (record, *others)
    ]
    return {"comparisons": comparisons, "table": table}


def _comparison(comparison: Comparison, relative_to: Path) -> dict:
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
        "judged": comparison.judged,
        "unscored": [{"file": score.sample.file, "error": score.error} for score in comparison.unscored],
        "pairs": [_pair(match) for match in comparison.matches],
    }


def _outcome(outcome: Outcome) -> dict:
    mean_a, mean_b = outcome.means or (None, None)
    return asdict(outcome.tally) | {
        "mean_a": mean_a,
        "mean_b": mean_b,
        "details": {key: list(means) for key, means in outcome.details.items()},
        "significance": outcome.significance and asdict(outcome.significance),
    }


def _pair(match: Match) -> dict:
    verdict = match.verdict
    if match.scores is None:
        sides = [{"score": None, "details": details} for details in match.details]
    else:
        sides = [{"score": score.value, "details": score.details} for score in match.scores]
    return {
        "prompt": verdict.prompt,
        "seed": verdict.seed,
        "category": verdict.category,
        "difference": verdict.difference,
        "verdict": verdict.result,
        "sides": [{"file": sample.file, **side} for sample, side in zip(match.samples, sides, strict=True)],
    }
