"""What a scorer says of every picture in a media folder; run again, only new or changed pictures are scored."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from PIL import Image
from rich.console import Console

from sipo.errors import UserError
from sipo.files import write_atomic
from sipo.samples.folder import Sample, read_samples
from sipo.samples.jsonl import append_jsonl, dump_jsonl, mend_tail, read_jsonl
from sipo.samples.progress import track_batches


class Scorer(Protocol):
    """Pictures and their prompts in, one number each out; higher is better."""

    name: str

    def __call__(
        self, images: list[Image.Image], prompts: list[str], metadata: list[dict | None] | None = None
    ) -> list[float]: ...


@runtime_checkable
class DetailedScorer(Protocol):
    """A scorer that also says why: one mapping a picture of JSON values, among them `score`.

    Two keys have a meaning to the reports: `correct` (bool) and `reasons` (a list of texts).
    """

    name: str

    def details(
        self, images: list[Image.Image], prompts: list[str], metadata: list[dict | None] | None = None
    ) -> list[Mapping]: ...


@dataclass(frozen=True)
class Score:
    """One picture's score; NaN where it could not be read, and then `error` says why."""

    sample: Sample
    value: float
    details: dict
    error: str | None = None


def score(folder: Path, scorer: Scorer, batch_size: int = 16, console: Console | None = None) -> list[Score]:
    """Score the pictures of `folder` into `scores.NAME.jsonl` and return the scores in the order of `samples.jsonl`.

    A line is `{"file", "hash", "score", ...details}`. The hash covers the picture's bytes, its prompt and its metadata:
    a line whose hash still holds is kept, anything else is scored anew. A picture that cannot be read gets the score
    null and an `error`, never stops the others, and is tried again next time. Raises `UserError` for a folder of videos.
    """
    folder, samples = Path(folder), read_samples(Path(folder))
    if any(sample.is_video for sample in samples):
        raise UserError(f"{folder} holds videos, and the scorer {scorer.name!r} judges pictures.")
    path = scores_path(folder, scorer.name)
    mend_tail(path)
    hashes = {sample.file: content_hash(folder, sample) for sample in samples}
    done = {r["file"]: r for r in _read(path) if r["score"] is not None and r["hash"] == hashes.get(r["file"])}
    missing = [sample for sample in samples if sample.file not in done]
    for batch in track_batches(missing, batch_size, console, f"Scoring {folder.name}", total=len(samples)):
        records = _score_batch(folder, batch, scorer, hashes)
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


def _score_batch(folder: Path, batch: Sequence[Sample], scorer: Scorer, hashes: dict[str, str]) -> list[dict]:
    images, errors = {}, {}
    for sample in batch:
        try:
            with Image.open(folder / sample.file) as image:
                images[sample.file] = image.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # all that PIL raises
            errors[sample.file] = f"{type(error).__name__}: {error}"
    found = [sample for sample in batch if sample.file in images]
    judged = _judge(scorer, [images[s.file] for s in found], [s.prompt for s in found], [s.metadata for s in found])
    details = dict(zip((s.file for s in found), judged, strict=True))
    records = []
    for sample in batch:
        record = {"file": sample.file, "hash": hashes[sample.file]}
        if sample.file in errors:
            records.append({**record, "score": None, "error": errors[sample.file]})
        else:
            records.append({**record, **details[sample.file]})
    return records


def _judge(scorer: Scorer, images: list[Image.Image], prompts: list[str], metadata: list[dict | None]) -> list[dict]:
    """One mapping a picture, with a finite `score`; the metadata are withheld unless every picture has some."""
    if not images:
        return []
    known = metadata if all(entry is not None for entry in metadata) else None
    if isinstance(scorer, DetailedScorer):
        judged = [dict(entry) for entry in scorer.details(images, prompts, known)]
    else:
        judged = [{"score": value} for value in scorer(images, prompts, known)]
    if len(judged) != len(images):
        raise ValueError(f"Scorer {scorer.name!r} was given {len(images)} pictures and returned {len(judged)} scores.")
    for entry in judged:
        entry["score"] = float(entry["score"])
        if not math.isfinite(entry["score"]):
            raise ValueError(f"Scorer {scorer.name!r} returned {entry['score']} for a picture.")
    return judged


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
    details = {key: value for key, value in record.items() if key not in ("file", "hash", "score", "error")}
    value = math.nan if record["score"] is None else record["score"]
    return Score(sample, value, details, record.get("error"))
