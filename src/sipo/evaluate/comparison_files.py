"""A comparison as files: `comparison.json` for programs and the run's report, `comparison.html` for people."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from sipo.errors import UserError
from sipo.evaluate.compare import Comparison, Outcome, Pair, verdict
from sipo.evaluate.gallery import sections
from sipo.evaluate.page import render
from sipo.evaluate.score import Score
from sipo.evaluate.words import cautions, comparison_paragraph
from sipo.files import write_atomic
from sipo.samples.folder import read_settings

JSON, HTML = "comparison.json", "comparison.html"


def write_comparison(comparison: Comparison, out: Path) -> Path:
    """Write both files into the folder `out` and return the path of the HTML, which needs no other file."""
    out = Path(out)
    record = to_dict(comparison, out)
    write_atomic(out / JSON, json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    page = render(
        "comparison.html",
        title=f"{record['names'][0]} against {record['names'][1]}",
        paragraph=comparison_paragraph(record),
        notices=cautions(record),
        comparison=record,
        gallery=sections(record, out, num_random=0, num_extreme=24),
    )
    write_atomic(out / HTML, page)
    return out / HTML


def read_comparison(folder: Path) -> dict | None:
    """What `write_comparison` recorded in `folder`, as plain dictionaries; None where there is none."""
    path = Path(folder) / JSON
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}). Compare again, or remove it.") from error


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
        "unscored": [{"file": score.sample.file, "error": score.error} for score in comparison.unscored],
        "pairs": [_pair(pair, comparison) for pair in comparison.pairs],
    }


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
