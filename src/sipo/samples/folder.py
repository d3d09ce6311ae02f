"""The media folder: pictures or videos, what each was made from, and the settings they share.

00000.png ...        the pictures; of videos the contact sheets
00000.mp4 ...        the videos, if it is a folder of videos
samples.jsonl        a line each: {"file", "prompt", "seed", "metadata"}, and "source" of models that read one, its path, absolute
                     or relative to the folder; a line is added once its files are on disk
settings.json        what made them all: model, weights, num_inference_steps, guidance_scale, size, fps of videos, ...
scores.NAME.jsonl    the scores by scorer NAME (see `sipo.evaluate.scores.score`)
"""

import functools
import os
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

from sipo.data.media.kinds import VIDEO_SUFFIXES, MediaFile
from sipo.errors import UserError, shown
from sipo.jsonl import read_jsonl, read_object

SAMPLES, SETTINGS = "samples.jsonl", "settings.json"
METADATA = "metadata.jsonl"  # in GenEval's layout: one prompt with what a judge must check, beside its samples
PICTURE, VIDEO = ".png", ".mp4"
DEPTH = 3  # folders from a medium up to that of its samples.jsonl: GenEval's layout has two between


@dataclass(frozen=True)
class PromptItem:
    """One picture or video to make: its text, the seed of its noise, metadata for a judge, and the picture to start from."""

    prompt: str
    seed: int
    metadata: dict | None = None
    source: MediaFile | None = None


@dataclass(frozen=True)
class Sample:
    """One picture or video that was made; `file` is relative to its folder. source: the path of the picture that it was made of."""

    file: str
    prompt: str
    seed: int
    metadata: dict | None = None
    source: str | None = None

    @property
    def is_video(self) -> bool:
        return Path(self.file).suffix.lower() in VIDEO_SUFFIXES

    @property
    def picture(self) -> str:
        """What shows it at a glance, relative to its folder: the picture itself, or the video's contact sheet."""
        return str(picture_of(Path(self.file)))

    def to_dict(self) -> dict:
        """A line of samples.jsonl: `source` where there is one."""
        return {key: value for key, value in asdict(self).items() if key != "source" or value is not None}


def picture_of(media: Path) -> Path:
    """The contact sheet beside a video; a picture is its own."""
    return media.with_suffix(PICTURE) if media.suffix.lower() in VIDEO_SUFFIXES else media


def read_samples(folder: Path) -> list[Sample]:
    """The media of a folder, in order. `UserError` where its `samples.jsonl` is missing or damaged."""
    path = Path(folder) / SAMPLES
    if not path.is_file():
        raise UserError(f"{folder} is not a folder of generated media: it has no {SAMPLES}.")
    samples = []
    for number, record in enumerate(read_jsonl(path), start=1):
        if fault := _fault(record):
            raise UserError(f"{path}, line {number}: {fault}.")
        file, prompt, seed = (record[key] for key in KINDS)
        source = record.get("source")
        samples.append(
            Sample(file, prompt, seed, record.get("metadata"), source and os.path.abspath(Path(folder) / source))
        )
    return samples


def drawn_as(file: Path) -> tuple[int, dict[str, Any]] | None:
    """The seed of a generated picture or video, and the settings of its folder; None of any other file."""
    file = Path(file).absolute()
    for folder in file.parents[:DEPTH]:
        if (folder / SAMPLES).is_file() and (folder / SETTINGS).is_file():
            seeds, settings = _seeds(folder, (folder / SAMPLES).stat().st_mtime_ns)
            seed = seeds.get(file.relative_to(folder).as_posix())
            return None if seed is None else (seed, settings)
    return None


@functools.lru_cache(maxsize=64)
def _seeds(folder: Path, _changed: int) -> tuple[dict[str, int], dict[str, Any]]:
    return {sample.file: sample.seed for sample in read_samples(folder)}, read_settings(folder)


KINDS = {"file": (str, "a text"), "prompt": (str, "a text"), "seed": (int, "a whole number")}


def _fault(record: dict) -> str | None:
    """Why a line describes no sample, or None."""
    for key, (kind, name) in KINDS.items():
        if key not in record:
            return f"the key {key!r} is missing"
        if not isinstance(record[key], kind) or isinstance(record[key], bool):
            return f"{key} is {shown(record[key], 60)}; expected {name}"
    if not isinstance(record.get("metadata"), dict | None):
        return f"metadata is {shown(record['metadata'], 60)}; expected an object"
    if not isinstance(record.get("source"), str | None):
        return f"source is {shown(record['source'], 60)}; expected a path"
    parts = PurePath(record["file"]).parts
    if not parts or PurePath(record["file"]).is_absolute() or ".." in parts or "\0" in record["file"]:
        return f"file is {shown(record['file'], 60)}; expected a name in the folder"
    return None


def read_settings(folder: Path) -> dict:
    """What made the media of `folder`; empty where nothing was recorded."""
    path = Path(folder) / SETTINGS
    return read_object(path) if path.exists() else {}
