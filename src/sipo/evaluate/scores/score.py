"""Score everything in a media folder, by all processes; run again, only what is new or changed is scored."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from sipo.data.media.decode_video import measure, read_frames
from sipo.data.media.pictures import decode
from sipo.errors import UserError, printable, shown
from sipo.evaluate.scores.files import (
    Score,
    content_hash,
    read_lines,
    read_scores,
    score_from_line,
    scores_path,
    source_hash,
)
from sipo.evaluate.scores.sources import find_one
from sipo.files import room_in
from sipo.jsonl import dump_jsonl
from sipo.processes import ALONE, Processes, batches
from sipo.processes.journal import Journal
from sipo.samples.folder import SAMPLES, Sample, read_samples
from sipo.scorers.base import ConfiguredScorer, DetailedScorer, FileScorer, Medium, Scorer, VideoScorer, reads_sources
from sipo.scorers.choice import ScorerChoice
from sipo.scorers.frames import evenly_spaced
from sipo.threads import read_ahead


def score(
    folder: Path,
    scorer: Scorer | FileScorer,
    batch_size: int = 16,
    console: Console | None = None,
    samples: Sequence[Sample] | None = None,
    out: Path | None = None,
    processes: Processes = ALONE,
) -> list[Score]:
    """Score the media of `folder` into `scores.NAME.jsonl` and return the scores in the order of the samples.

    samples: of a folder without `samples.jsonl`; out: the folder of the file, if not the media's own. A line is
    `{"file", "hash", "scorer", "score", ...details}`: the hash covers the file's bytes, its prompt and its metadata,
    `scorer` holds the scorer's settings, if it has any, and `source_hash` covers the source if the scorer reads it. A line
    is kept while all are unchanged, everything else is scored again; lines are written batch by batch. A file that cannot
    be read gets the score null and an `error`, does not stop the others, and is tried again next time. Raises `UserError`
    for videos if the scorer takes pictures, and for samples without a source if it reads sources.

    All `processes` call it. Each scores whole batches, those of one process, and decodes the next one meanwhile.
    """
    folder = Path(folder)
    samples = read_samples(folder) if samples is None else samples
    if any(sample.is_video for sample in samples) and not isinstance(scorer, (VideoScorer, FileScorer)):
        raise UserError(f"{folder} holds videos, and the scorer {scorer.name!r} takes pictures.")
    if reads_sources(scorer):
        require_sources_of(folder, samples, scorer.name)
    path = scores_path(out or folder, scorer.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    read_lines(path)  # refuses a file of something else
    journal, wanted = Journal(path, processes), {sample.file: sample for sample in samples}

    def is_current(line: dict) -> bool:
        sample = wanted.get(line["file"])
        return sample is not None and _is_headed(line, _head(folder, sample, scorer))

    done = journal.begin(is_current)
    missing = [sample for sample in samples if sample.file not in done]
    failed = [sample for sample in samples if sample.file in done and done[sample.file]["score"] is None]
    size = scorer.batch_size if isinstance(scorer, FileScorer) else batch_size

    def kept() -> str:
        return f"{len(journal.lines())} of {len(samples)} scores are kept"

    with (
        room_in(path.parent, kept=kept),
        processes.progress(console, f"Scoring {folder.name}", len(samples), len(done) - len(failed)) as advance,
    ):
        # What failed comes apart, so that the other batches are those of a call that was never stopped.
        units = [*batches(missing, size), *batches(failed, size)]
        for batch, read in read_ahead(processes.share(units), partial(_read, folder, scorer)):
            journal.add(_score_batch(batch, read, scorer))
            advance(len(batch))
    lines = journal.finish([sample.file for sample in samples])
    return [score_from_line(sample, lines[sample.file]) for sample in samples]


def require_sources_of(folder: Path, samples: Sequence[Sample], scorer: str) -> None:
    """Raises UserError where a sample records no source, which `scorer` reads."""
    if without := [sample.file for sample in samples if sample.source is None]:
        raise UserError(
            f"{folder}: {len(without)} of {len(samples)} samples record no source, {without[0]} first, and {scorer} judges "
            "a sample by the picture that it was made of. Models that read a source record it in samples.jsonl; for other "
            'folders give --prompts a .jsonl of {"file", "prompt", "source"}.'
        )


def scores_with(
    choice: ScorerChoice, console: Console, processes: Processes = ALONE
) -> Callable[[Path, str], list[Score]]:
    """A function (folder, scorer's name) -> scores: existing ones if complete, unless weights or a judge were named; else new ones.

    A scorer is loaded once, when it is first needed.
    """
    load = cache(choice.load)

    def scores(folder: Path, name: str) -> list[Score]:
        is_scored = (folder / SAMPLES).is_file() and scores_path(folder, name).is_file()
        if is_scored and not choice.is_explicit(name):
            existing = read_scores(folder, name)
            if all(score.error is None for score in existing):
                return existing
        samples = find_one(folder).samples
        return score(folder, load(name), choice.batch_size, console, samples, processes=processes)

    return scores


def _head(folder: Path, sample: Sample, scorer: object) -> dict:
    """The keys of a line before its score; a line with a different head is stale."""
    head: dict = {"file": sample.file, "hash": content_hash(folder, sample)}
    head |= {"source_hash": source_hash(sample)} if reads_sources(scorer) else {}
    return head | ({"scorer": scorer.settings} if isinstance(scorer, ConfiguredScorer) else {})


def _is_headed(record: dict, head: dict | None) -> bool:
    return head is not None and all(record.get(key) == head.get(key) for key in ("hash", "source_hash", "scorer"))


@dataclass(frozen=True)
class _Read:
    """A sample's line before its score, its medium and its source, or why one of them cannot be read."""

    head: dict
    medium: Any = None
    source: Any = None
    error: str | None = None


def _read(folder: Path, scorer: Scorer | FileScorer, batch: Sequence[Sample]) -> list[_Read]:
    found = []
    for sample in batch:
        head = _head(folder, sample, scorer)
        try:
            medium = _open(folder / sample.file, sample, scorer)
            found.append(_Read(head, medium, _open_source(sample, scorer) if reads_sources(scorer) else None))
        except (UserError, OSError, ValueError) as error:
            found.append(_Read(head, error=str(error)))
    return found


def _score_batch(batch: Sequence[Sample], read: Sequence[_Read], scorer: Scorer | FileScorer) -> list[dict]:
    """A line each, with a `score` and perhaps details, or the score null and an `error`."""
    readable = [(each, sample) for sample, each in zip(batch, read, strict=True) if each.error is None]
    results = iter(_run(scorer, [each for each, _ in readable], [sample for _, sample in readable]))
    return [
        each.head | (next(results) if each.error is None else {"score": None, "error": each.error}) for each in read
    ]


def _open(path: Path, sample: Sample, scorer: object):
    """A file in the form that the scorer takes: its path, a picture, or evenly spaced frames. Raises UserError."""
    if isinstance(scorer, FileScorer):
        if not path.is_file():
            raise UserError(f"{path} is missing")
        return path
    if sample.is_video and not isinstance(scorer, VideoScorer):
        raise TypeError("a video for a scorer of pictures")
    return open_medium(path, sample, scorer.num_frames if isinstance(scorer, VideoScorer) else 1)


def _open_source(sample: Sample, scorer: object) -> Image.Image | Path:
    """In the form that the scorer takes: a picture, or for a `FileScorer` its path. Raises UserError."""
    picture = open_source(sample)
    return Path(str(sample.source)) if isinstance(scorer, FileScorer) else picture


def open_source(sample: Sample) -> Image.Image:
    """The picture that a sample was made of. Raises UserError where it cannot be read."""
    assert sample.source is not None
    try:
        return decode(Path(sample.source))
    except UserError as error:
        raise UserError(f"the source {sample.source}: {error}") from error


def open_medium(path: Path, sample: Sample, num_frames: int) -> Medium:
    """A picture, or evenly spaced frames of a video. Raises UserError, OSError or ValueError where it cannot be read."""
    if not sample.is_video:
        return decode(path)
    places = set(evenly_spaced(measure(path).num_frames, num_frames))
    return [frame.picture() for place, frame in enumerate(read_frames(path)) if place in places]


def _run(scorer: Scorer | FileScorer, read: Sequence[_Read], samples: Sequence[Sample]) -> list[dict]:
    """One mapping each, with a finite `score` or an `error`; metadata are passed on only where all samples have some."""
    if not read:
        return []
    media = [each.medium for each in read]
    sources: dict = {"sources": [each.source for each in read]} if reads_sources(scorer) else {}
    prompts, metadata = [sample.prompt for sample in samples], [sample.metadata for sample in samples]
    known = metadata if all(entry is not None for entry in metadata) else None
    if isinstance(scorer, FileScorer):
        results = [dict(entry) for entry in scorer.score_files(media, prompts, **sources)]
    elif isinstance(scorer, DetailedScorer):
        results = [dict(entry) for entry in scorer.details(media, prompts, known, **sources)]
    else:
        results = [{"score": value} for value in scorer(media, prompts, known, **sources)]
    if len(results) != len(media):
        raise UserError(f"The scorer {scorer.name!r} was given {len(media)} media and returned {len(results)} scores.")
    return [_checked(entry, sample, scorer.name) for entry, sample in zip(results, samples, strict=True)]


def _checked(entry: dict, sample: Sample, name: str) -> dict:
    if "error" in entry:
        return {"score": None, **{key: entry[key] for key in ("error", "usage") if key in entry}}
    try:
        value = float(entry["score"])
        dump_jsonl([{**entry, "score": 0.0}])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"The scorer {name!r} returned {shown(entry)} for {sample.file}; expected a finite number as score, and "
            f"details that JSON can hold ({printable(error)})."
        ) from error
    if not math.isfinite(value):
        raise UserError(
            f"The scorer {name!r} returned {value} for {sample.file}. Half precision overflows in some networks: try "
            "bfloat16 or float32."
        )
    return {**entry, "score": value}
