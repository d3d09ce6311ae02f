"""The media folder: pictures or videos, what each was made from, and the settings they share.

00000.png ...        the pictures; of videos the contact sheets
00000.mp4 ...        the videos, if it is a folder of videos
samples.jsonl        a line each: {"file", "prompt", "seed", "metadata"}; a line is added once its files are on disk
settings.json        what made them all: model, weights, num_inference_steps, guidance_scale, size, fps of videos, ...
scores.NAME.jsonl    the scores by scorer NAME (see `sipo.evaluate.scores.score`)
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from sipo.data.media.kinds import VIDEO_SUFFIXES
from sipo.errors import UserError
from sipo.jsonl import read_json, read_jsonl

SAMPLES, SETTINGS = "samples.jsonl", "settings.json"
METADATA = "metadata.jsonl"  # in GenEval's layout: one prompt with what a judge must check, beside its samples
PICTURE, VIDEO = ".png", ".mp4"


@dataclass(frozen=True)
class PromptItem:
    """One picture or video to make: its text, the seed of its noise, and metadata for a judge."""

    prompt: str
    seed: int
    metadata: dict | None = None


@dataclass(frozen=True)
class Sample:
    """One picture or video that was made; `file` is relative to its folder."""

    file: str
    prompt: str
    seed: int
    metadata: dict | None = None

    @property
    def is_video(self) -> bool:
        return Path(self.file).suffix.lower() in VIDEO_SUFFIXES

    @property
    def picture(self) -> str:
        """What shows it at a glance, relative to its folder: the picture itself, or the video's contact sheet."""
        return str(picture_of(Path(self.file)))

    def to_dict(self) -> dict:
        return asdict(self)


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
        try:
            samples.append(Sample(record["file"], record["prompt"], record["seed"], record.get("metadata")))
        except KeyError as error:
            raise UserError(f"{path}, line {number}: the key {error} is missing.") from error
    return samples


def read_settings(folder: Path) -> dict:
    """What made the media of `folder`; empty where nothing was recorded."""
    return read_json(Path(folder) / SETTINGS) or {}
