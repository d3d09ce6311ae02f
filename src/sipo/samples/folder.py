"""The media folder: pictures, what each was made from, and the settings they share.

00000.png ...        the pictures
samples.jsonl        a line each: {"file", "prompt", "seed", "metadata"}; a line is added once its picture is on disk
settings.json        what made them all: model, weights, num_inference_steps, guidance_scale, resolution, ...
scores.NAME.jsonl    what scorer NAME says of each (see `sipo.evaluate.score`)
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from sipo.errors import UserError
from sipo.samples.jsonl import read_jsonl

SAMPLES, SETTINGS = "samples.jsonl", "settings.json"


@dataclass(frozen=True)
class PromptItem:
    """One picture to make: its text, the seed of its noise, and what a judge may want to know of it."""

    prompt: str
    seed: int
    metadata: dict | None = None


@dataclass(frozen=True)
class Sample:
    """One picture that was made; `file` is relative to its folder."""

    file: str
    prompt: str
    seed: int
    metadata: dict | None = None

    def to_dict(self) -> dict:
        return asdict(self)


def read_samples(folder: Path) -> list[Sample]:
    """The pictures of a media folder, in order. `UserError` where its `samples.jsonl` is missing or damaged."""
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
    """What made the pictures of `folder`; empty where nothing was recorded."""
    path = Path(folder) / SETTINGS
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not JSON ({error}).") from error
