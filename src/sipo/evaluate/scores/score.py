"""What a scorer says of everything in a media folder; run again, only what is new or changed is scored."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from sipo.data.media.decode_video import measure, read_frames
from sipo.data.media.kinds import VIDEO_SUFFIXES
from sipo.data.media.pictures import decode
from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.jsonl import append_jsonl, cut_torn_line, dump_jsonl, read_jsonl
from sipo.progress import track_batches
from sipo.samples.folder import Sample, read_samples
from sipo.scorers.base import ConfiguredScorer, DetailedScorer, FileScorer, Scorer, VideoScorer
from sipo.scorers.frames import evenly_spaced

KEYS = ("file", "hash", "scorer", "score", "error")  # of a line; its other keys are details


@dataclass(frozen=True)
class Score:
    """One medium's score; NaN where it could not be read, and then `error` says why."""

    sample: Sample
    value: float
    details: dict
    error: str | None = None


def score(
    folder: Path,
    scorer: Scorer | FileScorer,
    batch_size: int = 16,
    console: Console | None = None,
    samples: Sequence[Sample] | None = None,
    out: Path | None = None,
) -> list[Score]:
    """Score the media of `folder` into `scores.NAME.jsonl` and return the scores in the order of the samples.

    samples: of a folder without `samples.jsonl`; out: where the file goes, if not into the folder. A line is `{"file",
    "hash", "scorer", "score", ...details}`: the hash covers the file's bytes, its prompt and its metadata, `scorer` is
    the scorer's settings, if it has any. A line of which both still hold is kept, anything else is scored anew; the
    lines are on disk batch by batch. What cannot be read gets the score null and an `error`, never stops the others,
    and is tried again next time. Raises `UserError` for videos where the scorer judges pictures.
    """
    folder = Path(folder)
    samples = read_samples(folder) if samples is None else samples
    if any(map(is_video, samples)) and not isinstance(scorer, (VideoScorer, FileScorer)):
        raise UserError(f"{folder} holds videos, and the scorer {scorer.name!r} judges pictures.")
    path = scores_path(out or folder, scorer.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_torn_line(path)
    heads = {sample.file: _head(folder, sample, scorer) for sample in samples}
    done = {r["file"]: r for r in _read(path) if r["score"] is not None and _is_headed(r, heads.get(r["file"]))}
    missing = [sample for sample in samples if sample.file not in done]
    size = scorer.batch_size if isinstance(scorer, FileScorer) else batch_size
    for batch in track_batches(missing, size, console, f"Scoring {folder.name}", total=len(samples)):
        judged = _score_batch(folder, batch, scorer)
        records = [{**heads[sample.file], **found} for sample, found in zip(batch, judged, strict=True)]
        append_jsonl(path, records)
        done |= {record["file"]: record for record in records}
    write_atomic(path, dump_jsonl(done[sample.file] for sample in samples))  # in order, without superseded lines
    return [_from_record(sample, done[sample.file]) for sample in samples]


def read_scores(folder: Path, name: str) -> list[Score]:
    """The scores of `folder` by scorer `name`, in the order of `samples.jsonl`.

    A picture without a score, or changed since it was scored, is NaN with an `error`. Raises `UserError` where the
    folder was never scored by `name`.
    """
    folder = Path(folder)
    samples, path = read_samples(folder), scores_path(folder, name)
    if not path.is_file():
        raise UserError(f"{folder} has no scores by {name!r} ({path.name} is missing): score it first.")
    records = {record["file"]: record for record in _read(path)}
    scores = []
    for sample in samples:
        record = records.get(sample.file)
        if record is None:
            scores.append(Score(sample, math.nan, {}, "not scored yet"))
        elif record["hash"] != content_hash(folder, sample):
            scores.append(Score(sample, math.nan, {}, "changed since it was scored"))
        else:
            scores.append(_from_record(sample, record))
    return scores


def scores_path(folder: Path, name: str) -> Path:
    return Path(folder) / f"scores.{name}.jsonl"


def content_hash(folder: Path, sample: Sample) -> str:
    """A digest of all that a scorer sees: the file's bytes ("" where it cannot be read), the prompt, the metadata."""
    try:
        content = (Path(folder) / sample.file).read_bytes()
    except OSError:
        content = b""
    seen = json.dumps([sample.prompt, sample.metadata], sort_keys=True).encode()
    return hashlib.blake2b(seen + b"\0" + content, digest_size=16).hexdigest()


def is_video(sample: Sample) -> bool:
    return Path(sample.file).suffix.lower() in VIDEO_SUFFIXES


def _head(folder: Path, sample: Sample, scorer: object) -> dict:
    """What a line says before the score; a line with another head is stale."""
    head: dict = {"file": sample.file, "hash": content_hash(folder, sample)}
    return head | ({"scorer": scorer.settings} if isinstance(scorer, ConfiguredScorer) else {})


def _is_headed(record: dict, head: dict | None) -> bool:
    return head is not None and all(record.get(key) == head.get(key) for key in ("hash", "scorer"))


def _score_batch(folder: Path, batch: Sequence[Sample], scorer: Scorer | FileScorer) -> list[dict]:
    """What is said of each: a `score` and perhaps details, or the score null and an `error`."""
    media, errors = {}, {}
    for sample in batch:
        try:
            media[sample.file] = _open(folder / sample.file, sample, scorer)
        except (UserError, OSError, ValueError) as error:
            errors[sample.file] = {"score": None, "error": str(error)}
    found = [sample for sample in batch if sample.file in media]
    judged = dict(zip((s.file for s in found), _judge(scorer, [media[s.file] for s in found], found), strict=True))
    return [judged.get(sample.file) or errors[sample.file] for sample in batch]


def _open(path: Path, sample: Sample, scorer: object):
    """What the scorer wants of a file: its path, a picture, or evenly spaced frames of a video. Raises UserError."""
    if isinstance(scorer, FileScorer):
        if not path.is_file():
            raise UserError(f"{path} is missing")
        return path
    if not is_video(sample):
        return decode(path)
    if not isinstance(scorer, VideoScorer):
        raise TypeError("a video for a scorer of pictures")
    places = set(evenly_spaced(measure(path).num_frames, scorer.num_frames))
    return [frame.picture() for place, frame in enumerate(read_frames(path)) if place in places]


def _judge(scorer: Scorer | FileScorer, media: list, samples: Sequence[Sample]) -> list[dict]:
    """One mapping each, with a finite `score` or an `error`; the metadata are withheld unless all have some."""
    if not media:
        return []
    prompts, metadata = [sample.prompt for sample in samples], [sample.metadata for sample in samples]
    known = metadata if all(entry is not None for entry in metadata) else None
    if isinstance(scorer, FileScorer):
        judged = [dict(entry) for entry in scorer.judge_files(media, prompts)]
    elif isinstance(scorer, DetailedScorer):
        judged = [dict(entry) for entry in scorer.details(media, prompts, known)]
    else:
        judged = [{"score": value} for value in scorer(media, prompts, known)]
    if len(judged) != len(media):
        raise ValueError(f"Scorer {scorer.name!r} was given {len(media)} media and returned {len(judged)} scores.")
    return [_checked(entry, sample, scorer.name) for entry, sample in zip(judged, samples, strict=True)]


def _checked(entry: dict, sample: Sample, name: str) -> dict:
    if "error" in entry:
        return {"score": None, "error": entry["error"]}
    value = float(entry["score"])
    if not math.isfinite(value):
        raise UserError(
            f"The scorer {name!r} returned {value} for {sample.file}. Half precision overflows in some networks: try "
            "bfloat16 or float32."
        )
    return {**entry, "score": value}


def _read(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    records = read_jsonl(path)
    for number, record in enumerate(records, start=1):
        if not {"file", "hash", "score"} <= record.keys():
            raise UserError(
                f"{path}, line {number}: expected the keys file, hash and score. Remove the file to score anew."
            )
    return records


def _from_record(sample: Sample, record: dict) -> Score:
    details = {key: value for key, value in record.items() if key not in KEYS}
    value = math.nan if record["score"] is None else record["score"]
    return Score(sample, value, details, record.get("error"))
