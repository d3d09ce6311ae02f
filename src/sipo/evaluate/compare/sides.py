"""What takes part in a comparison: the scores of one model's pictures, read from a folder or from a file of scores."""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sipo.errors import UserError
from sipo.evaluate.scores.score import KEYS, Score, read_scores, scores_path
from sipo.jsonl import read_jsonl
from sipo.samples.folder import SAMPLES, Sample

UNNAMED = "score"


@dataclass(frozen=True)
class Side:
    """One model: `scores` by scorer, in the order of the media; `folder` is where their files lie.

    `judges`: by scorer, the settings that it recorded with its scores (several if a folder was scored in parts).
    """

    name: str
    folder: Path
    scores: Mapping[str, Sequence[Score]]
    judges: Mapping[str, list] = field(default_factory=dict)


def scorer_of(file: Path) -> str:
    """`scores.NAME.jsonl` -> NAME; a file of any other name does not say, and its scorer is called "score"."""
    found = re.fullmatch(r"scores\.(.+)\.jsonl", Path(file).name)
    return found[1] if found else UNNAMED


def read_score_file(file: Path) -> list[Score]:
    """The scores of one file, wherever it lies.

    A file that lies in a media folder gets prompts and seeds from the folder's `samples.jsonl`. In any other, every line
    must say `prompt` and `score` (a number, or null with an `error`); without a `seed` the n-th line of a prompt gets n.
    Raises `UserError`, naming the line.
    """
    file = Path(file)
    if (file.parent / SAMPLES).is_file() and file == scores_path(file.parent, scorer_of(file)):
        return read_scores(file.parent, scorer_of(file))
    scores, seen = [], Counter()
    for number, line in enumerate(read_jsonl(file), start=1):
        if not _is_whole(line):
            raise UserError(
                f'{file}, line {number}: expected a text under "prompt", a number under "score", and where there are any '
                f'a whole number under "seed" and an object under "metadata". A file of scores without prompts belongs '
                f"into the folder of its media, beside {SAMPLES}."
            )
        prompt, value = line["prompt"], line["score"]
        sample = Sample(str(line.get("file", "")), prompt, line.get("seed", seen[prompt]), line.get("metadata"))
        seen[prompt] += 1
        details = {k: v for k, v in line.items() if k not in (*KEYS, "prompt", "seed", "metadata")}
        value = math.nan if value is None else float(value)
        error = None if math.isfinite(value) else str(line.get("error", "no score"))
        scores.append(Score(sample, value if error is None else math.nan, details, error))
    return scores


def _is_whole(line: dict) -> bool:
    kinds = {"prompt": str, "score": int | float | None, "seed": int, "metadata": dict | None}
    values = {"seed": 0, "metadata": None, **line}
    return all(
        key in values and isinstance(values[key], kind) and not isinstance(values[key], bool)
        for key, kind in kinds.items()
    )


def recorded_judges(file: Path) -> list:
    """The different settings that scorers recorded in a file of scores; empty where there are none, or no file."""
    lines = read_jsonl(file) if file.is_file() else []
    found = {json.dumps(line["scorer"], sort_keys=True) for line in lines if line.get("scorer") is not None}
    return [json.loads(text) for text in sorted(found)]


def is_complete(folder: Path, scorer: str) -> bool:
    """Whether every medium of a folder has a score by `scorer` that still fits it."""
    if not scores_path(folder, scorer).is_file():
        return False
    return all(score.error is None for score in read_scores(folder, scorer))
