"""Files of scores: `scores.NAME.jsonl` beside the media that it is about, or a file of scores on its own."""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sipo.data.media.kinds import MAX_VIDEO_BYTES
from sipo.errors import UserError
from sipo.files import read_regular
from sipo.jsonl import read_jsonl
from sipo.samples.folder import SAMPLES, Sample, read_samples

KEYS = ("file", "hash", "source_hash", "scorer", "score", "error")  # of a line; its other keys are details
UNNAMED = "score"


@dataclass(frozen=True)
class Score:
    """One sample's score; NaN where it could not be read, and then `error` is the reason."""

    sample: Sample
    value: float
    details: dict
    error: str | None = None


def scores_path(folder: Path, name: str) -> Path:
    return Path(folder) / f"scores.{name}.jsonl"


def scorer_of(file: Path) -> str:
    """`scores.NAME.jsonl` -> NAME; the scorer of a file with any other name is called "score"."""
    found = re.fullmatch(r"scores\.(.+)\.jsonl", Path(file).name)
    return found[1] if found else UNNAMED


def content_hash(folder: Path, sample: Sample) -> str:
    """A hash of all that most scorers read: the file's bytes ("" if it cannot be read), the prompt, the metadata."""
    text = json.dumps([sample.prompt, sample.metadata], sort_keys=True).encode()
    return _hash(text + b"\0" + _content(Path(folder) / sample.file))


def source_hash(sample: Sample) -> str:
    """A hash of what scorers that read sources read besides: the bytes of the source ("" if there is none)."""
    return _hash(_content(Path(sample.source)) if sample.source else b"")


def _content(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_VIDEO_BYTES)
    except (OSError, UserError):
        return b""


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_lines(path: Path) -> list[dict]:
    """The lines of a file beside its media; none without the file. Raises `UserError` for a line without its keys."""
    records = read_jsonl(path) if path.is_file() else []
    for number, record in enumerate(records, start=1):
        score = record.get("score")
        if (
            not {"file", "hash", "score"} <= record.keys()
            or not isinstance(record["file"], str)
            or not (score is None or (isinstance(score, int | float) and not isinstance(score, bool)))
        ):
            raise UserError(
                f"{path}, line {number}: expected the keys file (a text), hash and score (a number or null). Remove the file "
                "to score again."
            )
    return records


def score_from_line(sample: Sample, line: dict) -> Score:
    details = {key: value for key, value in line.items() if key not in KEYS}
    value = math.nan if line["score"] is None else line["score"]
    return Score(sample, value, details, line.get("error"))


def read_scores(folder: Path, name: str) -> list[Score]:
    """The scores of `folder` by scorer `name`, in the order of `samples.jsonl`.

    A sample without a score, or changed since it was scored, is NaN with an `error`. Raises `UserError` where the
    folder was never scored by `name`.
    """
    folder = Path(folder)
    samples, path = read_samples(folder), scores_path(folder, name)
    if not path.is_file():
        raise UserError(f"{folder} has no scores by {name!r} ({path.name} is missing): score it first.")
    lines = {line["file"]: line for line in read_lines(path)}
    scores = []
    for sample in samples:
        line = lines.get(sample.file)
        if line is None:
            scores.append(Score(sample, math.nan, {}, "not scored yet"))
        elif line["hash"] != content_hash(folder, sample) or line.get("source_hash") not in (None, source_hash(sample)):
            scores.append(Score(sample, math.nan, {}, "changed since it was scored"))
        else:
            scores.append(score_from_line(sample, line))
    return scores


def recorded_settings(file: Path) -> list:
    """The distinct settings that scorers recorded in a file of scores; empty without any, or without the file."""
    lines = read_jsonl(file) if file.is_file() else []
    found = {json.dumps(line["scorer"], sort_keys=True) for line in lines if line.get("scorer") is not None}
    return [json.loads(text) for text in sorted(found)]


def read_score_file(file: Path) -> list[Score]:
    """The scores of one file in any place.

    A file in a media folder takes prompts and seeds from the folder's `samples.jsonl`. In any other file, every line
    needs `prompt` and `score` (a number, or null with an `error`); without a `seed` the n-th line of a prompt gets n.
    Raises `UserError`, naming the line.
    """
    file = Path(file)
    if (file.parent / SAMPLES).is_file() and file == scores_path(file.parent, scorer_of(file)):
        return read_scores(file.parent, scorer_of(file))
    scores, seen = [], Counter()
    for number, line in enumerate(read_jsonl(file), start=1):
        if not _is_valid(line):
            raise UserError(
                f'{file}, line {number}: expected a text under "prompt", a number under "score", and if present a whole '
                'number under "seed" and an object under "metadata". A file of scores without prompts belongs '
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


def _is_valid(line: dict) -> bool:
    kinds = {"prompt": str, "score": int | float | None, "seed": int, "metadata": dict | None}
    values = {"seed": 0, "metadata": None, **line}
    return all(
        key in values and isinstance(values[key], kind) and not isinstance(values[key], bool)
        for key, kind in kinds.items()
    )


def total_usage(usages: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Requests, tokens and dollars of all answers of an endpoint."""
    found: dict[str, float] = {}
    for usage in usages:
        found |= {key: found.get(key, 0) + value for key, value in usage.items()}
    return found
