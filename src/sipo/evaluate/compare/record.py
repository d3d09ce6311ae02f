"""comparison.json: what it holds, how it is written and read."""

import os
from dataclasses import asdict
from pathlib import Path

from sipo.evaluate.compare.contest import Contest
from sipo.evaluate.compare.matches import Comparison, Match, Outcome
from sipo.jsonl import read_json
from sipo.samples.folder import read_settings

JSON = "comparison.json"


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
    record = read_json(Path(folder) / JSON, "Compare again, or remove it.")
    return record if record is None or "comparisons" in record else _from_first_version(record)


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
    scores = [{"score": score.value, "details": score.details} for score in match.scores or ()]
    return {
        "prompt": verdict.prompt,
        "seed": verdict.seed,
        "category": verdict.category,
        "difference": verdict.difference,
        "verdict": verdict.result,
        "sides": [
            {"file": sample.file, **side}
            for sample, side in zip(match.samples, scores or [{"score": None, "details": {}}] * 2, strict=True)
        ],
    }
